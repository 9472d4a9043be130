// SPDX-License-Identifier: Apache-2.0
/*
 * One event for each call of the balloon driver.
 *
 * Every seam has an entry and a return program. The entry notes the call in the task's slot of
 * `calls`; the return writes the event. Which calls a task is in at that moment (`open`) tells a
 * leak's cause. A call still open when the recording ends stands in `calls`, from where the recorder
 * takes it.
 *
 * Compiled by BCC against stubs/, behind the declarations of events.py (the event) and state.py (what
 * is kept between entry and return), and these definitions of loader.py:
 *   CPUS             possible CPUs
 *   RING_PAGES       4 KiB pages of the ring
 *   WAKE_EVENTS      unread events from which the reader is woken before its timer
 *   VB_NUM_PFNS, VB_NUM_PAGES, VB_SIZE_WORK
 *                    offsets in struct virtio_balloon, from BTF; undefined where there is none
 */
#include <uapi/linux/ptrace.h>

#define __always_inline inline __attribute__((always_inline))

struct level {
	u64 written; /* events, ever */
	u64 read; /* events, ever; set by the reader */
};

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_TABLE("hash", u32, struct task_calls, calls, 1024);
BPF_ARRAY(fresh, struct task_calls, 1);
BPF_ARRAY(last_target, u64, 1);
BPF_F_TABLE("array", u32, struct cpu_counters, counters, CPUS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct level, level, 1, BPF_F_MMAPABLE);

/* A probe runs with preemption off, and an interrupt's probes count other kinds: no atomics. */
static __always_inline struct counters *counters_of(u32 kind)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct cpu_counters *here = counters.lookup(&cpu);

	return here && kind < KINDS ? &here->kind[kind] : 0;
}

static __always_inline void count_entered(u32 kind)
{
	struct counters *n = counters_of(kind);

	if (n)
		n->entered++;
}

static __always_inline u64 wake_flag(void)
{
	u32 zero = 0;
	struct level *l = level.lookup(&zero);

	if (!l)
		return BPF_RB_NO_WAKEUP;
	__sync_fetch_and_add(&l->written, 1);
	return l->written - l->read > WAKE_EVENTS ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline void emit(u32 kind, const struct slot *slot, u32 done, u32 within, u32 queue,
				 u32 flags)
{
	struct counters *n = counters_of(kind);
	struct balloon_event *e = events.ringbuf_reserve(sizeof(*e));
	u64 id = bpf_get_current_pid_tgid();

	if (!n) {
		if (e)
			events.ringbuf_discard(e, BPF_RB_NO_WAKEUP);
		return;
	}
	if (!e) {
		n->lost++;
		if (done != UNKNOWN_PAGES)
			n->lost_pages += done;
		return;
	}
	n->written++;
	e->start_ns = slot->start;
	e->duration_ns = kind == KIND_NOTICE ? 0 : bpf_ktime_get_ns() - slot->start;
	e->asked = slot->asked;
	e->done = done;
	e->tid = kind == KIND_NOTICE ? 0 : (u32)id;
	e->pid = kind == KIND_NOTICE ? 0 : id >> 32;
	e->cpu = bpf_get_smp_processor_id();
	e->kind = kind;
	e->within = within;
	e->queue = queue;
	e->flags = flags;
	e->reserved = 0;
	if (kind == KIND_NOTICE) /* the task is only the one that was interrupted */
		__builtin_memset(e->comm, 0, sizeof(e->comm));
	else
		bpf_get_current_comm(e->comm, sizeof(e->comm));
	events.ringbuf_submit(e, wake_flag());
}

static __always_inline u32 pages32(u64 pages)
{
	return pages < UNKNOWN_PAGES ? (u32)pages : UNKNOWN_PAGES - 1;
}

static __always_inline struct task_calls *current_calls(void)
{
	u32 tid = bpf_get_current_pid_tgid();

	return calls.lookup(&tid);
}

/* The task enters `call`; `kind` is the event its return will write, 0 for none. */
static __always_inline struct task_calls *enter(u32 call, u32 kind, u64 object, u32 asked)
{
	u64 id = bpf_get_current_pid_tgid();
	struct task_calls *t;
	u32 tid = id, zero = 0;

	count_entered(kind);
	t = calls.lookup(&tid);
	if (!t) {
		struct task_calls *empty = fresh.lookup(&zero);

		if (!empty)
			return 0;
		calls.update(&tid, empty);
		t = calls.lookup(&tid);
		if (!t) {
			struct counters *n = counters_of(kind);

			if (n)
				n->untracked++;
			return 0;
		}
		t->pid = id >> 32;
		bpf_get_current_comm(t->comm, sizeof(t->comm));
	}
	t->open |= 1 << call;
	t->slot[call].start = bpf_ktime_get_ns();
	t->slot[call].object = object;
	t->slot[call].asked = asked;
	t->slot[call].done = 0;
	return t;
}

/* The task returns from `call`: its slot if the entry was seen, else 0. */
static __always_inline struct slot *leave(struct task_calls *t, u32 call)
{
	if (!t || !(t->open & (1 << call)))
		return 0;
	t->open &= ~(1 << call);
	return &t->slot[call];
}

/* The last thing a return program does: the slots are gone after this. */
static __always_inline void forget_if_idle(struct task_calls *t)
{
	u32 tid = bpf_get_current_pid_tgid();

	if (!t->open)
		calls.delete(&tid);
}

static __always_inline u32 within(const struct task_calls *t)
{
	return t->open & ((1 << CALL_ACK) - 1);
}

/* ---- the size worker: update_balloon_size_func(work), with fill_balloon inlined ---- */

int worker_entry(struct pt_regs *ctx)
{
	struct task_calls *t = enter(CALL_WORKER, KIND_FILL, PT_REGS_PARM1(ctx), UNKNOWN_PAGES);

	if (!t)
		return 0;
	/* Nothing calls the worker: whatever else seems open has lost its return. */
	t->open = 1 << CALL_WORKER;
	t->leaked = 0;
	return 0;
}

int worker_return(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();
	struct slot *s = leave(t, CALL_WORKER);
	struct counters *n;
	bool filled;

	if (!s)
		return 0;
	if (s->done)
		filled = true;
	else if (t->leaked)
		filled = false;
	else if (s->asked != UNKNOWN_PAGES)
		filled = s->asked > 0;
	else /* an allocation that failed sleeps for 200 ms; a worker without work returns at once */
		filled = bpf_ktime_get_ns() - s->start >= 200000000ull;
	if (filled) {
		emit(KIND_FILL, s, s->done, 0, QUEUE_NONE, 0);
	} else {
		n = counters_of(KIND_FILL);
		if (n)
			n->entered--; /* it was no fill */
	}
	forget_if_idle(t);
	return 0;
}

/* ---- leak_balloon(vb, num) ---- */

int leak_entry(struct pt_regs *ctx)
{
	enter(CALL_LEAK, KIND_LEAK, 0, pages32(PT_REGS_PARM2(ctx)));
	return 0;
}

int leak_return(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();
	struct slot *s = leave(t, CALL_LEAK);

	if (!s)
		return 0;
	if (within(t) == 1 << CALL_WORKER)
		t->leaked = 1;
	emit(KIND_LEAK, s, (u32)PT_REGS_RC(ctx), within(t), QUEUE_NONE, 0);
	forget_if_idle(t);
	return 0;
}

/* ---- tell_host(vb, vq), and how many pages it tells ---- */

/* The pages of the open ack are the done of the call that moves them. Where that call was entered
 * before the probes were there, the ack is all there is to know of it: its return tells. */
static __always_inline void credit(struct task_calls *t, u32 pages)
{
	t->slot[CALL_ACK].asked = pages;
	if (t->open & (1 << CALL_LEAK))
		t->slot[CALL_LEAK].done += pages;
	else if (t->open & (1 << CALL_MIGRATE))
		return;
	else if (t->queue == QUEUE_INFLATE && t->open & (1 << CALL_WORKER))
		t->slot[CALL_WORKER].done += pages;
	else
		t->orphan = t->queue == QUEUE_INFLATE   ? KIND_FILL :
			    t->queue == QUEUE_DEFLATE ? KIND_LEAK :
							0;
}

int ack_entry(struct pt_regs *ctx)
{
	struct task_calls *t = enter(CALL_ACK, KIND_ACK, PT_REGS_PARM2(ctx), UNKNOWN_PAGES);
	/* struct virtqueue { struct list_head list; callback; const char *name; ... } */
	u64 name = 0;
	char first = 0;

	if (!t)
		return 0;
	bpf_probe_read_kernel(&name, sizeof(name), (void *)PT_REGS_PARM2(ctx) + 24);
	bpf_probe_read_kernel(&first, sizeof(first), (void *)name);
	t->orphan = 0;
	t->queue = first == 'i' ? QUEUE_INFLATE : first == 'd' ? QUEUE_DEFLATE : QUEUE_OTHER;
#ifdef VB_NUM_PFNS
	u32 pages = 0;

	bpf_probe_read_kernel(&pages, sizeof(pages), (void *)PT_REGS_PARM1(ctx) + VB_NUM_PFNS);
	credit(t, pages);
#endif
	return 0;
}

/* virtqueue_add_outbuf(vq, sg, ...): without BTF, the length of the array shows the pages. The queue
 * is compared because an interrupt may send on another one in the middle of the ack. */
int outbuf_entry(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();
	struct slot *ack = t ? &t->slot[CALL_ACK] : 0;
	u32 bytes = 0;

	if (!ack || !(t->open & (1 << CALL_ACK)) || ack->asked != UNKNOWN_PAGES ||
	    ack->object != PT_REGS_PARM1(ctx))
		return 0;
	/* struct scatterlist { unsigned long page_link; u32 offset; u32 length; ... } */
	bpf_probe_read_kernel(&bytes, sizeof(bytes), (void *)PT_REGS_PARM2(ctx) + 12);
	credit(t, bytes / 4);
	return 0;
}

int ack_return(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();
	struct slot *s = leave(t, CALL_ACK);

	if (!s)
		return 0;
	emit(KIND_ACK, s, s->asked, within(t), t->queue, 0);
	if (t->orphan) {
		count_entered(t->orphan);
		emit(t->orphan, s, s->asked, within(t), QUEUE_NONE, FLAG_PARTIAL);
	}
	forget_if_idle(t);
	return 0;
}

/* ---- the shrinker: count(shrinker, sc), scan(shrinker, sc) ---- */

#define SHRINK_STOP (~0ul)

int count_entry(struct pt_regs *ctx)
{
	enter(CALL_COUNT, KIND_COUNT, 0, UNKNOWN_PAGES);
	return 0;
}

int count_return(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();
	struct slot *s = leave(t, CALL_COUNT);

	if (!s)
		return 0;
	emit(KIND_COUNT, s, pages32(PT_REGS_RC(ctx)), within(t), QUEUE_NONE, 0);
	forget_if_idle(t);
	return 0;
}

int scan_entry(struct pt_regs *ctx)
{
	u64 pages = 0;

	/* struct shrink_control { gfp_t gfp_mask; int nid; unsigned long nr_to_scan; ... } */
	bpf_probe_read_kernel(&pages, sizeof(pages), (void *)PT_REGS_PARM2(ctx) + 8);
	enter(CALL_SCAN, KIND_SCAN, 0, pages32(pages));
	return 0;
}

int scan_return(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();
	struct slot *s = leave(t, CALL_SCAN);
	u64 freed = PT_REGS_RC(ctx);

	if (!s)
		return 0;
	if (freed == SHRINK_STOP)
		emit(KIND_SCAN, s, 0, within(t), QUEUE_NONE, FLAG_STOP);
	else
		emit(KIND_SCAN, s, pages32(freed), within(t), QUEUE_NONE, 0);
	forget_if_idle(t);
	return 0;
}

/* ---- virtio_balloon_oom_notify(nb, dummy, unsigned long *freed) ---- */

int oom_entry(struct pt_regs *ctx)
{
	u64 freed = 0;
	struct task_calls *t;

	bpf_probe_read_kernel(&freed, sizeof(freed), (void *)PT_REGS_PARM3(ctx));
	t = enter(CALL_OOM, KIND_OOM_NOTIFY, PT_REGS_PARM3(ctx), UNKNOWN_PAGES);
	if (t) /* `asked` is not used by this kind: keep what others had freed before */
		t->slot[CALL_OOM].done = pages32(freed);
	return 0;
}

int oom_return(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();
	struct slot *s = leave(t, CALL_OOM);
	u64 freed = 0;

	if (!s)
		return 0;
	bpf_probe_read_kernel(&freed, sizeof(freed), (void *)s->object);
	emit(KIND_OOM_NOTIFY, s, pages32(freed) - s->done, within(t), QUEUE_NONE, 0);
	forget_if_idle(t);
	return 0;
}

/* ---- virtballoon_migratepage(info, newpage, page, mode): 0 is success ---- */

int migrate_entry(struct pt_regs *ctx)
{
	enter(CALL_MIGRATE, KIND_MIGRATE, 0, 1);
	return 0;
}

int migrate_return(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();
	struct slot *s = leave(t, CALL_MIGRATE);

	if (!s)
		return 0;
	emit(KIND_MIGRATE, s, PT_REGS_RC(ctx) == 0, within(t), QUEUE_NONE, 0);
	forget_if_idle(t);
	return 0;
}

/* ---- unbinding and suspend: only the cause of the leaks they make ---- */

static __always_inline int leave_quietly(u32 call)
{
	struct task_calls *t = current_calls();

	if (leave(t, call))
		forget_if_idle(t);
	return 0;
}

int remove_entry(struct pt_regs *ctx)
{
	enter(CALL_REMOVE, 0, 0, 0);
	return 0;
}

int remove_return(struct pt_regs *ctx)
{
	return leave_quietly(CALL_REMOVE);
}

int freeze_entry(struct pt_regs *ctx)
{
	enter(CALL_FREEZE, 0, 0, 0);
	return 0;
}

int freeze_return(struct pt_regs *ctx)
{
	return leave_quietly(CALL_FREEZE);
}

/* ---- the target: the transport's config get(vdev, offset, buf, len), within the worker ---- */

int config_entry(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();

	/* struct virtio_balloon_config { __le32 num_pages; __le32 actual; ... } */
	if (t && t->open & (1 << CALL_WORKER) && PT_REGS_PARM2(ctx) == 0 && PT_REGS_PARM4(ctx) == 4)
		enter(CALL_CONFIG, 0, PT_REGS_PARM3(ctx), 0);
	return 0;
}

int config_return(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();
	struct slot *s = leave(t, CALL_CONFIG);
	u32 target = 0, size = UNKNOWN_PAGES, zero = 0;
	u64 *last = last_target.lookup(&zero);

	if (!s || !last)
		return 0;
	bpf_probe_read_kernel(&target, sizeof(target), (void *)s->object);
#ifdef VB_NUM_PAGES
	bpf_probe_read_kernel(&size, sizeof(size),
			      (void *)t->slot[CALL_WORKER].object - VB_SIZE_WORK + VB_NUM_PAGES);
	t->slot[CALL_WORKER].asked = target > size ? target - size : 0;
#endif
	if (*last != (u64)target + 1) { /* 0: none read yet */
		*last = (u64)target + 1;
		s->asked = target;
		count_entered(KIND_TARGET);
		emit(KIND_TARGET, s, size, within(t), QUEUE_NONE, 0);
	}
	return 0;
}

/* ---- the configuration change interrupt, virtballoon_changed(vdev): in nobody's name ---- */

int notice_entry(struct pt_regs *ctx)
{
	struct slot s = { .start = bpf_ktime_get_ns() };

	count_entered(KIND_NOTICE);
	emit(KIND_NOTICE, &s, 0, 0, QUEUE_NONE, 0);
	return 0;
}
