// scrape N MOUNT…: N cgroups laid out as Docker's in each of the hierarchies mounted there, the last of which is cgroup v2,
// with one process in each that makes a few events and then waits. Prints "ready"; ends when stdin does, and takes all away.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char parent[64];

static void path(char *out, const char *mount, int n)
{
	if (n < 0)
		sprintf(out, "%s/%s/docker", mount, parent);
	else
		sprintf(out, "%s/%s/docker/%064x", mount, parent, n + 1);
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void live(char **mounts, int count, int n)
{
	char file[512];
	for (int m = 0; m < count - 1; m++) {
		path(file, mounts[m], n);
		strcat(file, "/tasks");
		int fd = open(file, O_WRONLY);
		if (fd < 0 || write(fd, "0", 1) != 1)
			die(file);
		close(fd);
	}
	for (int i = 0; i < 3; i++) {
		pid_t child = fork();
		if (child == 0)
			_exit(0);
		waitpid(child, NULL, 0);
	}
	unshare(CLONE_NEWUTS);
	unshare(CLONE_NEWIPC);
	mount("none", "/nonexistent", "tmpfs", 0, NULL);
	umount2("/nonexistent", 0);
	for (;;)
		pause();
}

int main(int argc, char **argv)
{
	int n = atoi(argv[1]), count = argc - 2;
	char **mounts = argv + 2, name[512];
	pid_t *pids = calloc(n, sizeof *pids);
	sprintf(parent, "terrarium-bench-%d", getpid());
	for (int m = 0; m < count; m++) {
		sprintf(name, "%s/%s", mounts[m], parent);
		if (mkdir(name, 0755))
			die(name);
		path(name, mounts[m], -1);
		if (mkdir(name, 0755))
			die(name);
		for (int i = 0; i < n; i++) {
			path(name, mounts[m], i);
			if (mkdir(name, 0755))
				die(name);
		}
	}
	for (int i = 0; i < n; i++) {
		path(name, mounts[count - 1], i);
		int fd = open(name, O_PATH | O_DIRECTORY);
		struct clone_args args = { .flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = fd };
		pids[i] = syscall(SYS_clone3, &args, sizeof args);
		if (pids[i] < 0)
			die("clone3");
		if (pids[i] == 0)
			live(mounts, count, i);
		close(fd);
	}
	puts("ready");
	fflush(stdout);
	while (getchar() != EOF)
		;
	for (int i = 0; i < n; i++)
		kill(pids[i], SIGKILL);
	for (int i = 0; i < n; i++)
		waitpid(pids[i], NULL, 0);
	for (int m = 0; m < count; m++) {
		for (int i = n - 1; i >= -1; i--) {
			path(name, mounts[m], i);
			for (int try = 0; rmdir(name) && errno == EBUSY && try < 1000; try++)
				usleep(1000);
		}
		sprintf(name, "%s/%s", mounts[m], parent);
		rmdir(name);
	}
	return 0;
}
