// What `cargo xtask bench observatory` measures an observer with.
//
// observatory loop getppid|uts|ipc|mnt|mount|fork N [PER_SECOND]
//     does it N times, at most so often in a second, and prints nanoseconds of wall time for each; uts, ipc and mnt unshare such a
//     namespace. It runs on the last CPU that it may: a program at a tracepoint is attached by way of an event of perf's on one CPU,
//     mostly the first, and there the kernel does more after a program that returns 1, as bpftrace's do: 300 ns, measured
// observatory stats COMMAND…
//     runs the command while the kernel keeps statistics of eBPF programs (BPF_ENABLE_STATS), and prints a line for each
//     program that ran meanwhile: name, runs, nanoseconds
#define _GNU_SOURCE
#include <linux/bpf.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void do_getppid(int unused)
{
	(void)unused;
	syscall(SYS_getppid);
}

static void do_unshare(int namespaces)
{
	if (unshare(namespaces) < 0)
		die("unshare");
}

static void do_mount(int unused)
{
	(void)unused;
	if (mount("none", "/proc/self/cwd", "tmpfs", 0x80000000, NULL) == 0)
		die("mount that cannot be");
}

static void do_fork(int unused)
{
	(void)unused;
	pid_t child = fork();
	if (child < 0)
		die("fork");
	if (child == 0)
		_exit(0);
	if (waitpid(child, NULL, 0) < 0)
		die("waitpid");
}

struct what {
	const char *name;
	void (*once)(int);
	int argument;
};

static const struct what loops[] = {
	{"getppid", do_getppid, 0},
	{"uts", do_unshare, CLONE_NEWUTS},
	{"ipc", do_unshare, CLONE_NEWIPC},
	{"mnt", do_unshare, CLONE_NEWNS},
	{"mount", do_mount, 0},
	{"fork", do_fork, 0},
};

static void stay_on_the_last_cpu(void)
{
	cpu_set_t may;
	if (sched_getaffinity(0, sizeof may, &may) < 0)
		die("sched_getaffinity");
	int cpu = CPU_SETSIZE - 1;
	while (cpu > 0 && !CPU_ISSET(cpu, &may))
		cpu--;
	CPU_ZERO(&may);
	CPU_SET(cpu, &may);
	if (sched_setaffinity(0, sizeof may, &may) < 0)
		die("sched_setaffinity");
}

static int loop(const struct what *what, long count, long per_second)
{
	stay_on_the_last_cpu();
	uint64_t start = now();
	for (long n = 0; n < count; n++) {
		what->once(what->argument);
		// Ten milliseconds' worth at a time.
		if (per_second && n % (per_second / 100) == 0) {
			uint64_t due = start + n * 1000000000ull / per_second, at = now();
			if (at < due)
				usleep((due - at) / 1000);
		}
	}
	printf("%.1f\n", (double)(now() - start) / count);
	return 0;
}

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof *attr);
}

struct ran {
	uint32_t id;
	uint64_t runs, ns;
	char name[BPF_OBJ_NAME_LEN];
};

static int look(struct ran *all, int room)
{
	int count = 0;
	union bpf_attr next = {0};
	while (count < room && bpf(BPF_PROG_GET_NEXT_ID, &next) == 0) {
		union bpf_attr attr = {.prog_id = next.next_id};
		next.start_id = next.next_id;
		int fd = bpf(BPF_PROG_GET_FD_BY_ID, &attr);
		if (fd < 0)
			continue;
		struct bpf_prog_info info = {0};
		memset(&attr, 0, sizeof attr);
		attr.info.bpf_fd = fd;
		attr.info.info_len = sizeof info;
		attr.info.info = (uintptr_t)&info;
		if (bpf(BPF_OBJ_GET_INFO_BY_FD, &attr) == 0) {
			all[count].id = info.id;
			all[count].runs = info.run_cnt;
			all[count].ns = info.run_time_ns;
			memcpy(all[count++].name, info.name, BPF_OBJ_NAME_LEN);
		}
		close(fd);
	}
	return count;
}

static int stats(char **command)
{
	static struct ran before[1024], after[1024];
	union bpf_attr attr = {.enable_stats.type = BPF_STATS_RUN_TIME};
	if (bpf(BPF_ENABLE_STATS, &attr) < 0)
		die("BPF_ENABLE_STATS");
	int known = look(before, 1024);
	pid_t child = fork();
	if (child == 0) {
		execvp(command[0], command);
		die(command[0]);
	}
	int status;
	if (child < 0 || waitpid(child, &status, 0) < 0 || status != 0)
		die("the command");
	int count = look(after, 1024);
	for (int n = 0; n < count; n++) {
		uint64_t runs = after[n].runs, ns = after[n].ns;
		for (int m = 0; m < known; m++)
			if (before[m].id == after[n].id) {
				runs -= before[m].runs;
				ns -= before[m].ns;
			}
		if (runs)
			printf("%.16s %lu %lu\n", after[n].name, runs, ns);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 2 && strcmp(argv[1], "stats") == 0)
		return stats(argv + 2);
	if (argc > 3 && strcmp(argv[1], "loop") == 0)
		for (size_t n = 0; n < sizeof loops / sizeof *loops; n++)
			if (strcmp(argv[2], loops[n].name) == 0)
				return loop(&loops[n], atol(argv[3]), argc > 4 ? atol(argv[4]) : 0);
	fprintf(stderr, "usage: observatory loop getppid|uts|ipc|mnt|mount|fork N [PER_SECOND] | observatory stats COMMAND...\n");
	return 2;
}
