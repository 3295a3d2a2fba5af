/*
 * killer.c
 *		For LD_PRELOAD: kills a server right after it has done one thing to one file.
 *
 * QDB_KILL_AT is "unlink NAME" or "rename NAME" (of the target), NAME without folders, and
 * counts only while the file QDB_KILL_ARMED exists, which the kill removes.  Dies: this process
 * and its parent, the postmaster; the others follow by themselves.  With QDB_KILL_STOPS this
 * process is stopped instead.
 *
 * With QDB_NO_EXCHANGE the file system cannot exchange two names, as some cannot.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int
hit(const char *call, const char *path)
{
	const char *at = getenv("QDB_KILL_AT");
	const char *slash = strrchr(path, '/');
	size_t		length = strlen(call);

	return at != NULL && strncmp(at, call, length) == 0 && at[length] == ' ' &&
		strcmp(at + length + 1, slash != NULL ? slash + 1 : path) == 0;
}

static void
die_if_armed(int (*real_unlink) (const char *))
{
	const char *armed = getenv("QDB_KILL_ARMED");

	if (armed == NULL || real_unlink(armed) != 0)
		return;
	if (getenv("QDB_KILL_STOPS") != NULL)
	{
		raise(SIGSTOP);
		return;
	}
	kill(getppid(), SIGKILL);
	kill(getpid(), SIGKILL);
}

int
renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
	int			(*real) (int, const char *, int, const char *, unsigned) =
	(int (*) (int, const char *, int, const char *, unsigned)) dlsym(RTLD_NEXT, "renameat2");

	if (flags != 0 && getenv("QDB_NO_EXCHANGE") != NULL)
	{
		errno = EINVAL;
		return -1;
	}
	return real(from_dir, from, to_dir, to, flags);
}

int
unlink(const char *path)
{
	int			(*real) (const char *) = (int (*) (const char *)) dlsym(RTLD_NEXT, "unlink");
	int			rc = real(path);

	if (rc == 0 && hit("unlink", path))
		die_if_armed(real);
	return rc;
}

int
rename(const char *from, const char *to)
{
	int			(*real) (const char *, const char *) =
	(int (*) (const char *, const char *)) dlsym(RTLD_NEXT, "rename");
	int			rc = real(from, to);

	if (rc == 0 && hit("rename", to))
		die_if_armed((int (*) (const char *)) dlsym(RTLD_NEXT, "unlink"));
	return rc;
}
