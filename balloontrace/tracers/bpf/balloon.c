// SPDX-License-Identifier: Apache-2.0
/*
 * One event for each call of the balloon driver.
 *
 * Every seam has a program at its entry and one at its return. They only name the call and go on to
 * one of two programs by a tail call, for what has to be done is nearly the same for all: `entered`
 * notes the call in the task's slot of `calls`, `returned` writes the event. Which calls a task is in
 * at that moment (`open`) tells a leak's cause. A call still open when the recording ends stands in
 * `calls`, from where the recorder takes it.
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
BPF_F_TABLE("array", u32, struct cpu_counters, counters, CPUS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct level, level, 1, BPF_F_MMAPABLE);
BPF_ARRAY(fresh, struct task_calls, 1); /* zeros: too large for the stack */
BPF_ARRAY(last_target, u64, 1);
BPF_PERCPU_ARRAY(current_call, u32, 1);
BPF_PROG_ARRAY(stages, 2); /* 0: entered, 1: returned */

/* A probe runs with preemption off, and an interrupt's probe counts another kind: no atomics. */
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

static __always_inline struct task_calls *current_calls(void)
{
	u32 tid = bpf_get_current_pid_tgid();

	return calls.lookup(&tid);
}

/* The call a stage is to deal with. Masked rather than compared: the verifier then knows its bounds in
 * whatever register the compiler keeps it. */
static __always_inline u32 call_to_stage(void)
{
	u32 zero = 0, *number = current_call.lookup(&zero);

	return number ? *number & (SLOTS - 1) : 0;
}

static __always_inline bool is_open(const struct task_calls *t, u32 call)
{
	return t->open & (1 << call);
}

static __always_inline u32 within(const struct task_calls *t)
{
	return t->open & WITHIN_MASK;
}

static __always_inline u32 pages32(u64 pages)
{
	return pages < UNKNOWN_PAGES ? (u32)pages : UNKNOWN_PAGES - 1;
}

static __always_inline u32 kernel_u32(u64 address)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

static __always_inline u64 kernel_u64(u64 address)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
	return value;
}

/* ---- writing an event ---- */

static __always_inline u64 wake_flag(void)
{
	u32 zero = 0;
	struct level *l = level.lookup(&zero);

	if (!l)
		return BPF_RB_NO_WAKEUP;
	__sync_fetch_and_add(&l->written, 1);
	return l->written - l->read > WAKE_EVENTS ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline void count_written(u32 kind)
{
	struct counters *n = counters_of(kind);

	if (n)
		n->written++;
}

static __always_inline void count_lost(u32 kind, u32 pages)
{
	struct counters *n = counters_of(kind);

	if (!n)
		return;
	n->lost++;
	if (pages != UNKNOWN_PAGES)
		n->lost_pages += pages;
}

/* The event of a call of this task that has returned. */
static __always_inline void emit(u32 kind, const struct slot *slot, u32 done, u32 within, u32 queue,
				 u32 flags)
{
	struct balloon_event *e = events.ringbuf_reserve(sizeof(*e));
	u64 id = bpf_get_current_pid_tgid();

	if (!e) {
		count_lost(kind, done);
		return;
	}
	count_written(kind);
	e->start_ns = slot->start;
	e->duration_ns = bpf_ktime_get_ns() - slot->start;
	e->asked = slot->asked;
	e->done = done;
	e->tid = (u32)id;
	e->pid = id >> 32;
	e->cpu = bpf_get_smp_processor_id();
	e->kind = kind;
	e->within = within;
	e->queue = queue;
	e->flags = flags;
	e->reserved = 0;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	events.ringbuf_submit(e, wake_flag());
}

/* ---- a call is entered ---- */

/* The pages of the open ack are the done of the call that moves them. Where that call was entered
 * before the probes were there, the ack is all there is to know of it: its return tells. */
static __always_inline void credit(struct task_calls *t, u32 pages)
{
	t->slot[CALL_ACK].asked = pages;
	if (is_open(t, CALL_LEAK))
		t->slot[CALL_LEAK].done += pages;
	else if (is_open(t, CALL_MIGRATE))
		return;
	else if (t->queue == QUEUE_INFLATE && is_open(t, CALL_WORKER))
		t->slot[CALL_WORKER].done += pages;
	else if (t->queue == QUEUE_INFLATE)
		t->orphan = KIND_FILL;
	else if (t->queue == QUEUE_DEFLATE)
		t->orphan = KIND_LEAK;
}

/* tell_host(vb, vq) */
static __always_inline void ack_entered(struct pt_regs *ctx, struct task_calls *t)
{
	/* struct virtqueue { struct list_head list; callback; const char *name; ... } */
	char first = kernel_u32(kernel_u64(PT_REGS_PARM2(ctx) + 24));

	t->slot[CALL_ACK].object = PT_REGS_PARM2(ctx);
	t->slot[CALL_ACK].asked = UNKNOWN_PAGES;
	t->queue = first == 'i' ? QUEUE_INFLATE : first == 'd' ? QUEUE_DEFLATE : QUEUE_OTHER;
	t->orphan = 0;
#ifdef VB_NUM_PFNS
	credit(t, kernel_u32(PT_REGS_PARM1(ctx) + VB_NUM_PFNS));
#endif
}

/* What the arguments of a call say of it. */
static __always_inline void note_arguments(struct pt_regs *ctx, struct task_calls *t, u32 call)
{
	if (call == CALL_WORKER) { /* update_balloon_size_func(work) */
		t->slot[CALL_WORKER].object = PT_REGS_PARM1(ctx);
		t->slot[CALL_WORKER].asked = UNKNOWN_PAGES;
		/* Nothing calls the worker: whatever else seems open has lost its return. */
		t->open = 1 << CALL_WORKER;
		t->leaked = 0;
	} else if (call == CALL_LEAK) { /* leak_balloon(vb, num) */
		t->slot[CALL_LEAK].asked = pages32(PT_REGS_PARM2(ctx));
	} else if (call == CALL_ACK) {
		ack_entered(ctx, t);
	} else if (call == CALL_SCAN) { /* virtio_balloon_shrinker_scan(shrinker, sc) */
		/* struct shrink_control { gfp_t gfp_mask; int nid; unsigned long nr_to_scan; ... } */
		t->slot[CALL_SCAN].asked = pages32(kernel_u64(PT_REGS_PARM2(ctx) + 8));
	} else if (call == CALL_OOM) { /* virtio_balloon_oom_notify(nb, dummy, unsigned long *freed) */
		t->slot[CALL_OOM].object = PT_REGS_PARM3(ctx);
		t->slot[CALL_OOM].done = pages32(kernel_u64(PT_REGS_PARM3(ctx)));
	} else if (call == CALL_MIGRATE) { /* virtballoon_migratepage(info, newpage, page, mode) */
		t->slot[CALL_MIGRATE].asked = 1;
	} else if (call == CALL_CONFIG) { /* get(vdev, offset, buf, len) */
		t->slot[CALL_CONFIG].object = PT_REGS_PARM3(ctx);
	}
}

/* This task's calls, made if it is in none; 0 if there is no room. */
static __always_inline struct task_calls *make_calls(void)
{
	struct task_calls *t = current_calls(), *zeros;
	u64 id = bpf_get_current_pid_tgid();
	u32 tid = id, zero = 0;

	if (t)
		return t;
	zeros = fresh.lookup(&zero);
	if (!zeros)
		return 0;
	calls.update(&tid, zeros);
	t = calls.lookup(&tid);
	if (!t)
		return 0;
	t->pid = id >> 32;
	bpf_get_current_comm(t->comm, sizeof(t->comm));
	return t;
}

int entered(struct pt_regs *ctx)
{
	u32 call = call_to_stage(), kind = kind_of_call(call);
	struct task_calls *t = make_calls();
	struct counters *n;

	count_entered(kind);
	if (!t) {
		n = counters_of(kind);
		if (n)
			n->untracked++;
		return 0;
	}
	t->open |= 1 << call;
	t->slot[call].start = bpf_ktime_get_ns();
	t->slot[call].object = 0;
	t->slot[call].asked = UNKNOWN_PAGES;
	t->slot[call].done = 0;
	note_arguments(ctx, t, call);
	return 0;
}

/* ---- a call returns ---- */

/* A run of the size worker was a fill if it took pages in, or tried to. */
static __always_inline bool was_fill(const struct task_calls *t, const struct slot *s)
{
	if (s->done)
		return true;
	if (t->leaked)
		return false;
	if (s->asked != UNKNOWN_PAGES)
		return s->asked > 0;
	/* an allocation that failed sleeps for 200 ms; a worker without work returns at once */
	return bpf_ktime_get_ns() - s->start >= 200000000ull;
}

/* The worker has read the target; an event only if it is another one. */
static __always_inline bool target_changed(struct task_calls *t, struct slot *s)
{
	u32 zero = 0, target = kernel_u32(s->object);
	u64 *last = last_target.lookup(&zero);

	s->asked = target;
	s->done = UNKNOWN_PAGES;
#ifdef VB_NUM_PAGES
	s->done = kernel_u32(t->slot[CALL_WORKER].object - VB_SIZE_WORK + VB_NUM_PAGES);
	t->slot[CALL_WORKER].asked = target > s->done ? target - s->done : 0;
#endif
	if (!last || *last == (u64)target + 1) /* 0: none read yet */
		return false;
	*last = (u64)target + 1;
	count_entered(KIND_TARGET);
	return true;
}

/* What the call did, in s->done, and flags; the kind of event to write, 0 for none. */
static __always_inline u32 note_result(struct pt_regs *ctx, struct task_calls *t, struct slot *s,
				       u32 call, u32 *flags)
{
	u64 result = PT_REGS_RC(ctx);
	struct counters *n;

	if (call == CALL_WORKER) {
		if (was_fill(t, s))
			return KIND_FILL;
		n = counters_of(KIND_FILL);
		if (n)
			n->entered--; /* it was none */
		return 0;
	}
	if (call == CALL_LEAK) {
		s->done = result;
		if (within(t) == WITHIN_WORKER)
			t->leaked = 1;
	} else if (call == CALL_ACK) {
		s->done = s->asked;
	} else if (call == CALL_COUNT) {
		s->done = pages32(result);
	} else if (call == CALL_SCAN) {
		s->done = result == ~0ull ? 0 : pages32(result); /* SHRINK_STOP */
		*flags = result == ~0ull ? FLAG_STOP : 0;
	} else if (call == CALL_OOM) {
		s->done = pages32(kernel_u64(s->object)) - s->done;
	} else if (call == CALL_MIGRATE) {
		s->done = (u32)result == 0; /* MIGRATEPAGE_SUCCESS */
	} else if (call == CALL_CONFIG) {
		return target_changed(t, s) ? KIND_TARGET : 0;
	}
	return kind_of_call(call);
}

int returned(struct pt_regs *ctx)
{
	u32 call = call_to_stage(), flags = 0, kind, tid;
	struct task_calls *t = current_calls();
	struct slot *s;

	if (!t || !is_open(t, call))
		return 0;
	t->open &= ~(1 << call);
	s = &t->slot[call];
	kind = note_result(ctx, t, s, call, &flags);
	if (kind)
		emit(kind, s, s->done, within(t), call == CALL_ACK ? t->queue : QUEUE_NONE, flags);
	if (call == CALL_ACK && t->orphan) {
		count_entered(t->orphan);
		emit(t->orphan, s, s->done, within(t), QUEUE_NONE, FLAG_PARTIAL);
	}
	if (!t->open) {
		tid = bpf_get_current_pid_tgid();
		calls.delete(&tid);
	}
	return 0;
}

/* ---- the programs at the seams ---- */

static __always_inline int go_on(struct pt_regs *ctx, u32 call, u32 stage)
{
	u32 zero = 0, *number = current_call.lookup(&zero);

	if (number) {
		*number = call;
		stages.call(ctx, stage);
	}
	return 0;
}

#define ENTERED 0
#define RETURNED 1

/* Two templates for all calls: the loader puts the number of a call in the place of ANY_CALL, in the
 * compiled program, and loads it once for each. Twenty functions that differ in a number would only
 * take longer to compile. */
int any_entry(struct pt_regs *ctx)
{
	return go_on(ctx, ANY_CALL, ENTERED);
}

int any_return(struct pt_regs *ctx)
{
	return go_on(ctx, ANY_CALL, RETURNED);
}

/* The transport's config get(vdev, offset, buf, len), only where the size worker reads the target:
 * struct virtio_balloon_config { __le32 num_pages; __le32 actual; ... } */
int config_entry(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();

	if (t && is_open(t, CALL_WORKER) && PT_REGS_PARM2(ctx) == 0 && PT_REGS_PARM4(ctx) == 4)
		return go_on(ctx, CALL_CONFIG, ENTERED);
	return 0;
}

/* virtqueue_add_outbuf(vq, sg, ...): without BTF, the length of the array shows the pages. The queue
 * is compared because an interrupt may send on another one in the middle of the ack. */
int outbuf_entry(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();
	struct slot *ack = t ? &t->slot[CALL_ACK] : 0;

	if (!ack || !is_open(t, CALL_ACK) || ack->asked != UNKNOWN_PAGES ||
	    ack->object != PT_REGS_PARM1(ctx))
		return 0;
	/* struct scatterlist { unsigned long page_link; u32 offset; u32 length; ... } */
	credit(t, kernel_u32(PT_REGS_PARM2(ctx) + 12) / 4);
	return 0;
}

/* The configuration change interrupt, virtballoon_changed(vdev). It writes its event itself: the
 * task is only the one that was interrupted, and may be in the middle of a program above. */
int notice_entry(struct pt_regs *ctx)
{
	struct balloon_event *e;

	count_entered(KIND_NOTICE);
	e = events.ringbuf_reserve(sizeof(*e));
	if (!e) {
		count_lost(KIND_NOTICE, 0);
		return 0;
	}
	count_written(KIND_NOTICE);
	__builtin_memset(e, 0, sizeof(*e));
	e->start_ns = bpf_ktime_get_ns();
	e->cpu = bpf_get_smp_processor_id();
	e->kind = KIND_NOTICE;
	events.ringbuf_submit(e, wake_flag());
	return 0;
}
