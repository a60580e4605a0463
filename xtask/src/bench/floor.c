/* The floor of `cargo xtask bench runtime`: the system calls that a container of the benchmark cannot do without,
 * and nothing else. No specification is read, nothing is remembered, nothing is checked twice: what a runtime
 * costs beyond this is its own.
 *
 * usage: floor ROOTFS NAME
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(const char *what) {
  fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
  _exit(125);
}

static void put(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) die(path);
  close(fd);
}

static void mask(const char *path) {
  struct stat st;
  if (stat(path, &st) < 0) return;
  if (S_ISDIR(st.st_mode)) {
    if (mount("tmpfs", path, "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1") < 0) die(path);
  } else if (mount("/dev/null", path, NULL, MS_BIND, NULL) < 0) {
    die(path);
  }
}

static void readonly(const char *path) {
  if (mount(path, path, NULL, MS_BIND | MS_REC, NULL) < 0) return;
  if (mount(NULL, path, NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) die(path);
}

static void node(const char *path, int minor) {
  if (mknod(path, S_IFCHR | 0666, makedev(1, minor)) < 0) die(path);
}

/* The container's own loopback is up, as with every runtime. */
static void loopback(void) {
  struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0) die("lo");
  close(fd);
}

/* What the specification lists: three capabilities, one limit, and nobody's groups. */
static void drop_rights(void) {
  const struct rlimit files = {1024, 1024};
  const uint32_t kept = 1u << CAP_KILL | 1u << CAP_NET_BIND_SERVICE | 1u << CAP_AUDIT_WRITE;
  if (setrlimit(RLIMIT_NOFILE, &files) < 0) die("rlimit");
  for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
    if (!(cap < 32 && kept >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0) die("bounding set");
  if (setgroups(0, NULL) < 0 || setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0) die("ids");
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2] = {{.effective = kept, .permitted = kept}, {0}};
  if (syscall(SYS_capset, &header, data) < 0) die("capset");
  umask(022);
}

static void child(const char *rootfs, const int *tasks, int hierarchies) {
  static const char *masked[] = {"/proc/acpi",        "/proc/asound",     "/proc/interrupts",  "/proc/kcore",   "/proc/keys",
                                 "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi",      "/proc/timer_list", "/proc/timer_stats",
                                 "/sys/devices/virtual/powercap", "/sys/firmware", "/sys/fs/selinux"};
  static const char *read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
  for (int i = 0; i < hierarchies; i++)
    if (write(tasks[i], "0", 1) != 1) die("join cgroup");
  if (unshare(CLONE_NEWCGROUP) < 0) die("unshare cgroup");
  if (setsid() < 0) die("setsid");
  if (sethostname("floor", 5) < 0) die("sethostname");
  loopback();
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) die("private /");
  if (mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL) < 0) die("bind rootfs");
  if (chdir(rootfs) < 0) die("chdir rootfs");
  if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) die("proc");
  if (mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL) < 0) die("sysfs");
  if (mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k") < 0) die("dev");
  if (mkdir("dev/pts", 0755) < 0 || mkdir("dev/shm", 01777) < 0 || mkdir("dev/mqueue", 0755) < 0) die("mkdir dev");
  if (mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5") < 0) die("devpts");
  if (mount("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k") < 0) die("shm");
  if (mount("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) die("mqueue");
  node("dev/null", 3);
  node("dev/zero", 5);
  node("dev/full", 7);
  node("dev/random", 8);
  node("dev/urandom", 9);
  if (mknod("dev/tty", S_IFCHR | 0666, makedev(5, 0)) < 0) die("dev/tty");
  if (symlink("pts/ptmx", "dev/ptmx") < 0 || symlink("/proc/self/fd", "dev/fd") < 0) die("symlink");
  if (syscall(SYS_pivot_root, ".", ".") < 0) die("pivot_root");
  if (umount2(".", MNT_DETACH) < 0) die("umount old root");
  if (chdir("/") < 0) die("chdir /");
  for (size_t i = 0; i < sizeof read_only / sizeof *read_only; i++) readonly(read_only[i]);
  for (size_t i = 0; i < sizeof masked / sizeof *masked; i++) mask(masked[i]);
  drop_rights();
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) die("no_new_privs");
  char *argv[] = {"/bin/true", NULL}, *envp[] = {"PATH=/bin", NULL};
  execve(argv[0], argv, envp);
  die("exec");
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: floor ROOTFS NAME\n");
    return 2;
  }
  int v2 = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
  const char *roots[3] = {v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"};
  int hierarchies = v2 ? 1 : 3, tasks[2] = {-1, -1};
  char paths[3][256], file[512];
  for (int i = 0; i < hierarchies; i++) {
    snprintf(paths[i], sizeof paths[i], "%s/%s", roots[i], argv[2]);
    if (mkdir(paths[i], 0755) < 0) die(paths[i]);
  }
  snprintf(file, sizeof file, "%s/%s", paths[v2 ? 0 : 1], v2 ? "memory.max" : "memory.limit_in_bytes");
  put(file, "67108864");
  snprintf(file, sizeof file, "%s/pids.max", paths[v2 ? 0 : 2]);
  put(file, "128");
  for (int i = 1; i < hierarchies; i++) {
    snprintf(file, sizeof file, "%s/tasks", paths[i]);
    if ((tasks[i - 1] = open(file, O_WRONLY | O_CLOEXEC)) < 0) die(file);
  }
  int unified = open(paths[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
  struct clone_args args = {
      .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET | CLONE_INTO_CGROUP,
      .exit_signal = SIGCHLD,
      .cgroup = (uint64_t)unified,
  };
  pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
  if (pid < 0) die("clone3");
  if (pid == 0) child(argv[1], tasks, hierarchies - 1);
  int status;
  if (waitpid(pid, &status, 0) < 0) die("wait");
  for (int i = 0; i < hierarchies; i++)
    if (rmdir(paths[i]) < 0) die(paths[i]);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
