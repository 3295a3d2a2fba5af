/*-------------------------------------------------------------------------
 *
 * process.c
 *		Images, coroutines, memory and clocks of the nodes' coordinators.
 *
 * A process starts with its image's static memory as it was after loading, and on
 * an empty stack.  It gives way only in sim_process_wait, so between two waits
 * nothing else happens; a kill takes effect while it waits, or where a fault is due in
 * one of its effects.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define STACK_BYTES		(512 * 1024)

static SimImage images[SIM_MAX_NODES];

#if defined(__SANITIZE_ADDRESS__)
static void *scheduler_fake;
static const void *scheduler_bottom;
static size_t scheduler_size;
#endif

/* ---- memory of a process ---- */

typedef struct Allocation
{
	struct Allocation *next;
	struct Allocation *prev;
	SimNode    *owner;
	size_t		size;
}			Allocation;

extern void *sim_malloc(size_t size);
extern void *sim_calloc(size_t n, size_t size);
extern void *sim_realloc(void *p, size_t size);
extern void sim_free(void *p);

void *
sim_malloc(size_t size)
{
	Allocation *a = malloc(sizeof(Allocation) + size);

	if (a == NULL)
		abort();
	a->owner = sim.current;
	a->size = size;
	a->prev = NULL;
	a->next = NULL;
	if (a->owner != NULL)
	{
		a->next = a->owner->allocations;
		if (a->next != NULL)
			a->next->prev = a;
		a->owner->allocations = a;
	}
	return a + 1;
}

void *
sim_calloc(size_t n, size_t size)
{
	void	   *p = sim_malloc(n * size);

	memset(p, 0, n * size);
	return p;
}

void
sim_free(void *p)
{
	Allocation *a;

	if (p == NULL)
		return;
	a = (Allocation *) p - 1;
	if (a->prev != NULL)
		a->prev->next = a->next;
	else if (a->owner != NULL)
		a->owner->allocations = a->next;
	if (a->next != NULL)
		a->next->prev = a->prev;
	free(a);
}

void *
sim_realloc(void *p, size_t size)
{
	void	   *new;
	size_t		old = p == NULL ? 0 : ((Allocation *) p - 1)->size;

	if (size <= old)
		return p;
	new = sim_malloc(size);
	if (p != NULL)
		memcpy(new, p, old);
	sim_free(p);
	return new;
}

/* What its process had. */
void
sim_process_free(SimNode * node)
{
	while (node->allocations != NULL)
		sim_free((Allocation *) node->allocations + 1);
}

/* ---- images ---- */

static int
find_data(struct dl_phdr_info *info, size_t size, void *arg)
{
	SimImage   *image = arg;
	struct link_map *map = image->handle;
	uintptr_t	begin = 0;
	uintptr_t	end = 0;
	uintptr_t	relro = 0;

	if (info->dlpi_addr != map->l_addr)
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++)
	{
		const ElfW(Phdr) * p = &info->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && (p->p_flags & PF_W) != 0)
		{
			begin = info->dlpi_addr + p->p_vaddr;
			end = begin + p->p_memsz;
		}
		else if (p->p_type == PT_GNU_RELRO)
			relro = info->dlpi_addr + p->p_vaddr + p->p_memsz;
	}
	if (relro != 0)
	{
		relro &= ~(uintptr_t) (sysconf(_SC_PAGESIZE) - 1);
		if (relro > begin)
			begin = relro;
	}
	image->data = (uint8 *) begin;
	image->size = end - begin;
	return 1;
}

/* Also over the red zones that the address sanitizer lays between variables. */
static void
__attribute__((no_sanitize("address")))
copy_words(void *to, const void *from, size_t n)
{
	uint64	   *t = to;
	const uint64 *f = from;

	for (size_t i = 0; i < n / 8; i++)
		t[i] = f[i];
	for (size_t i = n / 8 * 8; i < n; i++)
		((uint8 *) to)[i] = ((const uint8 *) from)[i];
}

/*
 * Puts a process's static memory back.  Most of it is not touched in a life, and
 * to compare is quicker than to copy.
 */
static void
reset_image(SimImage * image)
{
#if defined(__SANITIZE_ADDRESS__)
	copy_words(image->data, image->pristine, image->size);
#else
	const size_t block = 4096;

	for (size_t at = 0; at < image->size; at += block)
	{
		size_t		n = Min(block, image->size - at);

		if (memcmp(image->data + at, image->pristine + at, n) != 0)
			memcpy(image->data + at, image->pristine + at, n);
	}
#endif
}

static void *
find_symbol(void *handle, const char *name)
{
	void	   *symbol = dlsym(handle, name);

	if (symbol == NULL)
	{
		fprintf(stderr, "%s is not in the image\n", name);
		exit(2);
	}
	return symbol;
}

/* The loader knows a file by its inode, so each image needs a file of its own. */
static void *
load_copy(const char *path, int i)
{
	char		copy[1024];
	char		buf[65536];
	int			from = open(path, O_RDONLY);
	int			to;
	ssize_t		n;
	void	   *handle;

	snprintf(copy, sizeof(copy), "%s.%d.%d", path, (int) getpid(), i);
	to = open(copy, O_WRONLY | O_CREAT | O_TRUNC, 0700);
	while ((n = read(from, buf, sizeof(buf))) > 0)
		if (write(to, buf, n) != n)
			n = -1;
	close(from);
	close(to);
	handle = dlopen(copy, RTLD_NOW | RTLD_LOCAL);
	if (handle == NULL)
	{
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	unlink(copy);
	return handle;
}

void
sim_images_load(const char *path, int n)
{
	for (int i = 0; i < n; i++)
	{
		SimImage   *image = &images[i];

		image->handle = load_copy(path, i);
		image->shared = find_symbol(image->handle, "qdb_shared");
		image->shmem_startup = find_symbol(image->handle, "qdb_shmem_startup");
		image->coordinator_main = find_symbol(image->handle, "qdb_coordinator_main");
		image->may_write = find_symbol(image->handle, "qdb_may_write");
		image->lease_alive = find_symbol(image->handle, "qdb_lease_alive");
		image->state = find_symbol(image->handle, "sim_image_state");
		image->configuration = find_symbol(image->handle, "sim_image_configuration");
		((void (*) (void)) find_symbol(image->handle, "sim_image_bind")) ();
		dl_iterate_phdr(find_data, image);
		image->pristine = malloc(image->size);
		copy_words(image->pristine, image->data, image->size);

		sim.nodes[i] = calloc(1, sizeof(SimNode));
		sim.nodes[i]->index = i;
		sim.nodes[i]->image = image;
		sim.nodes[i]->shared = calloc(1, sizeof(QdbShared));
		sim.nodes[i]->coordinator.stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
											   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		snprintf(sim.nodes[i]->host, sizeof(sim.nodes[i]->host), "h%d", i);
	}
}

/* ---- coroutines ---- */

void
sim_enter(SimNode * node)
{
	sim.current = node;
	if (node == NULL)
		return;
	qdb_advertise_host = node->host;
	qdb_listen_addresses = node->host;
	PostPortNumber = 5000 + node->index;
	qdb_raft_port = 7000 + node->index;
	qdb_replication_port = 6000 + node->index;
	qdb_http_port = 8000 + node->index;
}

static void
leave_process(SimProcess * process, bool for_good)
{
#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_start_switch_fiber(for_good ? NULL : &process->fake_stack, scheduler_bottom, scheduler_size);
#endif
	_longjmp(sim.scheduler, 1);
}

static void
run_process(void)
{
	SimNode    *node = sim.current;

#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_finish_switch_fiber(NULL, &scheduler_bottom, &scheduler_size);
#endif
	node->image->coordinator_main((Datum) 0);
	abort();
}

static void
begin_process(SimNode * node)
{
	/* Not on the stack: its frame is left by a jump. */
	static ucontext_t context;

#if defined(__SANITIZE_ADDRESS__)
	__asan_unpoison_memory_region(node->coordinator.stack, STACK_BYTES);
#endif
	getcontext(&context);
	context.uc_stack.ss_sp = node->coordinator.stack;
	context.uc_stack.ss_size = STACK_BYTES;
	context.uc_link = NULL;
	makecontext(&context, run_process, 0);
	setcontext(&context);
	abort();
}

/* Goes on with a process until it waits again or ends. */
static void
switch_to(SimNode * node)
{
	SimProcess *process = &node->coordinator;

	sim_enter(node);
	if (_setjmp(sim.scheduler) == 0)
	{
#if defined(__SANITIZE_ADDRESS__)
		__sanitizer_start_switch_fiber(&scheduler_fake, process->stack, STACK_BYTES);
#endif
		if (process->started)
			_longjmp(process->context, 1);
		process->started = true;
		begin_process(node);
	}
#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_finish_switch_fiber(scheduler_fake, NULL, NULL);
#endif
	sim_enter(NULL);
}

static void
wake_now(SimNode * node, uint64 serial, uint64 unused)
{
	SimProcess *process = &node->coordinator;

	if (!process->alive || serial != process->wake_serial)
		return;
	process->runnable = false;
	if (node->stopped)
	{
		sim_process_wake(node, 20 * SIM_MS);
		return;
	}
	switch_to(node);
	sim_check_node(node);
}

void
sim_process_wake(SimNode * node, int64 delay_us)
{
	SimProcess *process = &node->coordinator;
	int64		at = sim.now_us + delay_us;

	if (!process->alive || (process->runnable && process->wake_us <= at))
		return;
	process->runnable = true;
	process->wake_us = at;
	process->wake_serial++;
	sim_at(delay_us, wake_now, node, process->wake_serial, 0);
}

void
sim_process_wait(int64 us)
{
	SimNode    *node = sim.current;
	SimProcess *process = &node->coordinator;

	if (us < 0)
		us = 0;
	sim_process_wake(node, us);
	if (_setjmp(process->context) == 0)
		leave_process(process, false);
#if defined(__SANITIZE_ADDRESS__)
	__sanitizer_finish_switch_fiber(process->fake_stack, NULL, NULL);
#endif
}

void
sim_process_start(SimNode * node, int64 delay_us)
{
	SimProcess *process = &node->coordinator;

	sim_process_free(node);
	reset_image(node->image);
	*node->image->shared = node->shared;
	process->alive = true;
	process->started = process->runnable = false;
	sim_process_wake(node, delay_us);
}

void
sim_process_kill(SimNode * node)
{
	if (!node->coordinator.alive)
		return;
	node->coordinator.alive = false;
	node->coordinator.wake_serial++;
	sim_net_node_died(node);
}

static void
start_again(SimNode * node, uint64 unused, uint64 unused2)
{
	if (!node->coordinator.alive)
		sim_process_start(node, 0);
}

static void
begin_cycle(SimNode * node, uint64 unused, uint64 unused2)
{
	sim_server_cycle(node);
}

void
sim_process_exit(bool cycle)
{
	SimNode    *node = sim.current;

	sim_process_kill(node);
	if (node->shutdown)
	{
		node->life++;
		sim_at(0, begin_cycle, node, 0, 0);
	}
	else if (cycle)
		sim_later(0, begin_cycle, node, 0, 0);
	else
		sim_later(10 * SIM_MS, start_again, node, 0, 0);
	leave_process(&node->coordinator, true);
	abort();
}

bool
sim_lease_alive(SimNode * node)
{
	SimNode    *before = sim.current;
	bool		alive;

	sim_enter(node);
	alive = node->server_up && !node->in_recovery && node->image->lease_alive();
	sim_enter(before);
	return alive;
}

/* ---- clocks ---- */

int64
sim_node_time(const SimNode * node)
{
	return node->clock_base + (int64) ((double) (sim.now_us - node->clock_true) * node->clock_rate);
}

int64
sim_node_unix(const SimNode * node)
{
	return SIM_UNIX + sim.now_us + node->unix_offset;
}

void
sim_set_clock(SimNode * node, double rate, int64 jump_us)
{
	node->clock_base = sim_node_time(node) + jump_us;
	node->clock_true = sim.now_us;
	node->clock_rate = rate;
}
