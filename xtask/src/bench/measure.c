/* Runs commands for `cargo xtask bench` and prints what they cost: one line of microseconds of wall time from the first
 * fork to the last wait, and KiB of the largest resident set among them.
 *
 * A program of its own, small and static: rusage counts the resident set that a child had before its execve, which is
 * that of whoever forked it.
 *
 * usage: measure [-c] [-p] [-t SECONDS] COMMAND [ARG]... [++ COMMAND [ARG]...]...
 *   -c  in a mount namespace where an empty folder covers the unified cgroup hierarchy: crun takes a hybrid host for
 *       one of cgroup v1 then, instead of refusing it
 *   -p  all commands at once instead of one after another
 *   -t  ends with all commands when all of it takes longer
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what) {
  fprintf(stderr, "measure: %s: %s\n", what, strerror(errno));
  exit(125);
}

static long long now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void start(char **command) {
  pid_t pid = vfork();
  if (pid < 0) die("vfork");
  if (pid == 0) {
    execvp(command[0], command);
    _exit(127);
  }
}

static long peak_kib;

static void reap(void) {
  int status;
  struct rusage usage;
  if (wait4(-1, &status, 0, &usage) < 0) die("wait");
  if (usage.ru_maxrss > peak_kib) peak_kib = usage.ru_maxrss;
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    fprintf(stderr, "measure: a command failed with status %#x\n", status);
    exit(1);
  }
}

/* What does not end in time ends with this: it would keep the pipe to the benchmark open. */
static void give_up(int signal) {
  static const char said[] = "measure: not all commands ended in time\n";
  (void)signal;
  if (write(STDERR_FILENO, said, sizeof said - 1) < 0) _exit(1);
  kill(0, SIGKILL);
}

int main(int argc, char **argv) {
  if (setpgid(0, 0) < 0 || signal(SIGALRM, give_up) == SIG_ERR) die("set up");
  int at_once = 0, cover = 0, first = 1;
  for (; first < argc && argv[first][0] == '-'; first++) {
    if (strcmp(argv[first], "-c") == 0) cover = 1;
    else if (strcmp(argv[first], "-p") == 0) at_once = 1;
    else if (strcmp(argv[first], "-t") == 0 && first + 1 < argc) alarm((unsigned)atoi(argv[++first]));
    else break;
  }
  if (first >= argc) {
    fprintf(stderr, "usage: measure [-c] [-p] [-t SECONDS] COMMAND [ARG]... [++ COMMAND [ARG]...]...\n");
    return 2;
  }
  if (cover && access("/sys/fs/cgroup/unified/cgroup.procs", F_OK) == 0) {
    if (unshare(CLONE_NEWNS) < 0) die("unshare");
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) die("make mounts private");
    if (mount("tmpfs", "/sys/fs/cgroup/unified", "tmpfs", 0, NULL) < 0) die("cover the unified hierarchy");
  }
  int running = 0;
  long long begin = now_us();
  for (int i = first; i < argc; i++) {
    char **command = argv + i;
    while (i < argc && strcmp(argv[i], "++") != 0) i++;
    if (i < argc) argv[i] = NULL;
    start(command);
    if (at_once) running++;
    else reap();
  }
  for (; running > 0; running--) reap();
  printf("%lld %ld\n", now_us() - begin, peak_kib);
  return 0;
}
