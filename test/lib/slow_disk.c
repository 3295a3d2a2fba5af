/*
 * slow_disk.c
 *		For tests, by LD_PRELOAD: fsync and fdatasync of files below the server's
 *		data directory do not end while a file "stall_disk" is in it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void
stall(int fd)
{
	char		link[64];
	char		path[4096];
	char		folder[4096];
	ssize_t		n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n <= 0 || getcwd(folder, sizeof(folder)) == NULL)
		return;
	path[n] = '\0';
	if (strncmp(path, folder, strlen(folder)) != 0)
		return;
	/* A server's processes all work in its data directory. */
	while (access("stall_disk", F_OK) == 0)
		usleep(10000);
}

int
fsync(int fd)
{
	int			(*next) (int) = dlsym(RTLD_NEXT, "fsync");

	stall(fd);
	return next(fd);
}

int
fdatasync(int fd)
{
	int			(*next) (int) = dlsym(RTLD_NEXT, "fdatasync");

	stall(fd);
	return next(fd);
}
