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
 * is kept between entry and return; what is known of this kernel), and these definitions of compiler.py:
 *   CPUS             possible CPUs
 *   RING_PAGES       4 KiB pages of the ring
 *   WAKE_EVENTS      unread events from which the reader is woken before its timer
 */
#include <uapi/linux/ptrace.h>

#define __always_inline inline __attribute__((always_inline))

struct level {
	u64 written; /* events, ever */
	u64 read; /* events, ever; set by the reader */
};

struct hinting {
	u64 work; /* address of the balloon's report_free_page_work */
	u64 taken_back; /* pages, by the shrinker, ever */
	u64 accounted; /* pages lent_ever() that the events written so far tell of */
};

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_TABLE("hash", u32, struct task_calls, calls, 512);
BPF_F_TABLE("array", u32, struct cpu_counters, counters, CPUS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct level, level, 1, BPF_F_MMAPABLE);
BPF_ARRAY(layout, struct layout, 1);
BPF_ARRAY(fresh, struct task_calls, 1); /* zeros: too large for the stack */
BPF_ARRAY(last_target, u64, 1);
BPF_ARRAY(hinting, struct hinting, 1);
BPF_PERCPU_ARRAY(current_call, u32, 1);
BPF_PERCPU_ARRAY(reported_now, u32, 1); /* pages, from report_entry to its stage */
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

/* What is known of this kernel; never 0 but to the verifier. */
static __always_inline const struct layout *known(void)
{
	u32 zero = 0;

	return layout.lookup(&zero);
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

/* What is the same in every event. id: as bpf_get_current_pid_tgid tells it. */
static __always_inline void fill_in(struct balloon_event *e, u32 kind, u64 id, u32 done, u32 within,
				    u32 flags)
{
	count_written(kind);
	e->done = done;
	e->tid = (u32)id;
	e->pid = id >> 32;
	e->cpu = bpf_get_smp_processor_id();
	e->kind = kind;
	e->within = within;
	e->flags = flags;
	e->reserved = 0;
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
	fill_in(e, kind, id, done, within, flags);
	e->start_ns = slot->start;
	e->duration_ns = bpf_ktime_get_ns() - slot->start;
	e->asked = slot->asked;
	e->queue = queue;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	events.ringbuf_submit(e, wake_flag());
}

#define NO_TASK 1ull
#define NO_NAME 2ull

/* An event without a duration. comm: address of a task's name; 0: the current task's; NO_NAME: of a
 * task whose name is not visible; NO_TASK: an interrupt has nothing to do with the task it came upon. */
static __always_inline void emit_moment(u32 kind, u32 done, u32 within, u32 flags, u64 comm)
{
	struct balloon_event *e;
	u64 id = comm == NO_TASK ? 0 : bpf_get_current_pid_tgid();

	count_entered(kind);
	e = events.ringbuf_reserve(sizeof(*e));
	if (!e) {
		count_lost(kind, done);
		return;
	}
	fill_in(e, kind, id, done, within, flags);
	e->start_ns = bpf_ktime_get_ns();
	e->duration_ns = 0;
	e->asked = UNKNOWN_PAGES;
	e->queue = QUEUE_NONE;
	__builtin_memset(e->comm, 0, sizeof(e->comm));
	if (comm > NO_NAME)
		bpf_probe_read_kernel(e->comm, sizeof(e->comm), (void *)comm);
	else if (!comm)
		bpf_get_current_comm(e->comm, sizeof(e->comm));
	events.ringbuf_submit(e, wake_flag());
}

/* ---- a call is entered ---- */

/* The pages of the open ack are the done of the call that moves them. Where that call was entered
 * before the probes were there, the ack is all there is to know of it: its return tells. */
static __always_inline void credit(const struct layout *k, struct task_calls *t, u32 pages)
{
	u32 fill = k->fill_from == FILL_FROM_FILL_BALLOON ? CALL_FILL : CALL_WORKER;

	t->slot[CALL_ACK].asked = pages;
	if (is_open(t, CALL_LEAK))
		t->slot[CALL_LEAK].done += pages;
	else if (is_open(t, CALL_MIGRATE))
		return;
	else if (t->queue == QUEUE_INFLATE && !is_open(t, fill))
		t->orphan = KIND_FILL;
	else if (t->queue == QUEUE_INFLATE && k->fill_from == FILL_FROM_ACKS)
		t->slot[CALL_WORKER].done += pages;
	else if (t->queue == QUEUE_DEFLATE)
		t->orphan = KIND_LEAK;
}

/* tell_host(vb, vq) */
static __always_inline void ack_entered(struct pt_regs *ctx, const struct layout *k,
					struct task_calls *t)
{
	/* struct virtqueue { struct list_head list; callback; const char *name; ... } */
	char first;

	t->queue = QUEUE_OTHER;
	t->orphan = 0;
	if (!k->ack_pages)
		return;
	first = kernel_u32(kernel_u64(PT_REGS_PARM2(ctx) + 24));
	t->slot[CALL_ACK].object = PT_REGS_PARM2(ctx);
	t->queue = first == 'i' ? QUEUE_INFLATE : first == 'd' ? QUEUE_DEFLATE : QUEUE_OTHER;
	if (k->num_pfns)
		credit(k, t, kernel_u32(PT_REGS_PARM1(ctx) + k->num_pfns));
}

/* struct scatterlist { unsigned long page_link; u32 offset; u32 length; ... } */
static __always_inline u32 sg_pages(u64 sg)
{
	return kernel_u32(sg + 12) / 4096;
}

static __always_inline struct hinting *hints(void)
{
	u32 zero = 0;

	return hinting.lookup(&zero);
}

/* Pages that free page hinting has on loan, and those the shrinker took back before: a sum that only
 * report_free_page_func(work) changes, though the shrinker runs beside it. */
static __always_inline u64 lent_ever(const struct layout *k, const struct hinting *h)
{
	u64 blocks = kernel_u32(h->work - k->hint_work + k->free_blocks);

	return blocks * k->hint_block_pages + h->taken_back;
}

static __always_inline void hint_entered(const struct layout *k, u64 work)
{
	struct hinting *h = hints();

	if (!h || !k->free_blocks || h->work == work)
		return;
	h->work = work;
	h->accounted = lent_ever(k, h);
}

/* What the arguments of a call say of it. */
static __always_inline void note_arguments(struct pt_regs *ctx, const struct layout *k,
					   struct task_calls *t, u32 call)
{
	u32 zero = 0, *reported = reported_now.lookup(&zero);

	if (call == CALL_WORKER) { /* update_balloon_size_func(work) */
		t->slot[CALL_WORKER].object = PT_REGS_PARM1(ctx);
		t->slot[CALL_WORKER].asked = UNKNOWN_PAGES;
		/* Nothing calls the worker: whatever else seems open has lost its return. */
		t->open = 1 << CALL_WORKER;
		t->seen = 0;
	} else if (call == CALL_FILL) { /* fill_balloon(vb, num) */
		t->slot[CALL_FILL].asked = pages32(PT_REGS_PARM2(ctx));
	} else if (call == CALL_LEAK) { /* leak_balloon(vb, num) */
		if (k->leak_arguments)
			t->slot[CALL_LEAK].asked = pages32(PT_REGS_PARM2(ctx));
	} else if (call == CALL_ACK) {
		ack_entered(ctx, k, t);
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
	} else if (call == CALL_REPORT) {
		t->slot[CALL_REPORT].asked = reported ? *reported : UNKNOWN_PAGES;
	} else if (call == CALL_HINT) {
		hint_entered(k, PT_REGS_PARM1(ctx));
	} else if (call == CALL_SLEEP) {
		t->seen |= SEEN_SLEEP;
	} else if (call == CALL_OUT_OF_MEMORY) { /* out_of_memory(oc) */
		t->slot[CALL_OUT_OF_MEMORY].object =
			k->oom_memcg ? kernel_u64(PT_REGS_PARM1(ctx) + k->oom_memcg) : 0;
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
	const struct layout *k = known();
	struct task_calls *t = make_calls();
	struct counters *n;

	if (!k)
		return 0;
	if (call == CALL_WORKER && k->fill_from == FILL_FROM_FILL_BALLOON)
		kind = 0; /* fill_balloon is counted instead */
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
	note_arguments(ctx, k, t, call);
	return 0;
}

/* ---- a call returns ---- */

/* A run of the size worker was a fill if it took pages in, or tried to. */
static __always_inline bool was_fill(const struct task_calls *t, const struct slot *s)
{
	if (s->done)
		return true;
	if (t->seen & SEEN_LEAK)
		return false;
	if (s->asked != UNKNOWN_PAGES)
		return s->asked > 0;
	return t->seen & SEEN_SLEEP; /* a worker without work returns at once */
}

/* The worker has read the target; an event only if it is another one. */
static __always_inline bool target_changed(const struct layout *k, struct task_calls *t,
					   struct slot *s)
{
	u32 zero = 0, target = kernel_u32(s->object);
	u64 *last = last_target.lookup(&zero);

	s->asked = target;
	s->done = UNKNOWN_PAGES;
	if (k->num_pages) {
		s->done = kernel_u32(t->slot[CALL_WORKER].object - k->size_work + k->num_pages);
		t->slot[CALL_WORKER].asked = target > s->done ? target - s->done : 0;
	}
	if (!last || *last == (u64)target + 1) /* 0: none read yet */
		return false;
	*last = (u64)target + 1;
	count_entered(KIND_TARGET);
	return true;
}

/* Free page hinting lent pages or took them back. */
static __always_inline void hinted(const struct layout *k, struct slot *s, u32 *flags)
{
	struct hinting *h = hints();
	u64 before, now;

	if (!k->free_blocks || !h) {
		s->done = k->hint_inbufs ? s->done : UNKNOWN_PAGES;
		return;
	}
	before = h->accounted;
	now = lent_ever(k, h);
	h->accounted = now;
	*flags = now < before ? FLAG_RETURNED : 0;
	s->done = now < before ? before - now : now - before;
}

/* What the shrinker freed and no leak within it did are blocks of free page hinting. */
static __always_inline void scanned(struct slot *s, u64 result, u32 *flags)
{
	struct hinting *h = hints();

	if (result == ~0ull) { /* SHRINK_STOP */
		s->done = 0;
		*flags = FLAG_STOP;
		return;
	}
	if (h)
		__sync_fetch_and_add(&h->taken_back, result - s->done);
	s->done = pages32(result);
}

/* What the call did, in s->done, and flags; the kind of event to write, 0 for none. */
static __always_inline u32 note_result(struct pt_regs *ctx, const struct layout *k,
				       struct task_calls *t, struct slot *s, u32 call, u32 *flags)
{
	u64 result = PT_REGS_RC(ctx);
	struct hinting *h = hints();
	struct counters *n;

	if (call == CALL_WORKER) {
		if (k->fill_from == FILL_FROM_FILL_BALLOON)
			return 0;
		if (was_fill(t, s))
			return KIND_FILL;
		n = counters_of(KIND_FILL);
		if (n)
			n->entered--; /* it was none */
		return 0;
	}
	if (call == CALL_FILL) {
		s->done = pages32(result);
	} else if (call == CALL_LEAK) {
		s->done = result;
		if (within(t) == WITHIN_WORKER)
			t->seen |= SEEN_LEAK;
		if (is_open(t, CALL_SCAN))
			t->slot[CALL_SCAN].done += s->done;
	} else if (call == CALL_REMOVE) {
		if (h)
			h->work = 0; /* the next balloon may lie at the same address */
	} else if (call == CALL_ACK) {
		s->done = s->asked;
	} else if (call == CALL_COUNT) {
		s->done = pages32(result);
		if (!s->done) { /* in an OOM, every task that reclaims asks again and again */
			n = counters_of(KIND_COUNT);
			if (n)
				n->skipped++;
			return 0;
		}
	} else if (call == CALL_SCAN) {
		scanned(s, result, flags);
	} else if (call == CALL_OOM) {
		s->done = pages32(kernel_u64(s->object)) - s->done;
	} else if (call == CALL_MIGRATE) {
		s->done = (u32)result == 0; /* MIGRATEPAGE_SUCCESS */
	} else if (call == CALL_CONFIG) {
		return target_changed(k, t, s) ? KIND_TARGET : 0;
	} else if (call == CALL_REPORT) {
		s->done = (u32)result ? 0 : s->asked;
	} else if (call == CALL_HINT) {
		hinted(k, s, flags);
	} else if (call == CALL_BIND) {
		s->done = (u32)result == 0;
	}
	return kind_of_call(call);
}

int returned(struct pt_regs *ctx)
{
	u32 call = call_to_stage(), flags = 0, kind, tid;
	const struct layout *k = known();
	struct task_calls *t = current_calls();
	struct slot *s;
	bool whole;

	if (!k || !t || !is_open(t, call))
		return 0;
	t->open &= ~(1 << call);
	s = &t->slot[call];
	kind = note_result(ctx, k, t, s, call, &flags);
	if (kind)
		emit(kind, s, s->done, within(t), call == CALL_ACK ? t->queue : QUEUE_NONE, flags);
	if (call == CALL_ACK && t->orphan) {
		count_entered(t->orphan);
		whole = t->orphan == KIND_LEAK && k->leak_from_acks;
		emit(t->orphan, s, s->done, within(t), QUEUE_NONE, whole ? 0 : FLAG_PARTIAL);
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

/* Is this task in the size worker? The functions below have many other callers. */
static __always_inline struct task_calls *in_worker(void)
{
	struct task_calls *t = current_calls();

	return t && is_open(t, CALL_WORKER) ? t : 0;
}

/* A third template: for calls that are of interest in the size worker only. */
int worker_entry(struct pt_regs *ctx)
{
	return in_worker() ? go_on(ctx, ANY_CALL, ENTERED) : 0;
}

/* The transport's config get(vdev, offset, buf, len), only where the size worker reads the target:
 * struct virtio_balloon_config { __le32 num_pages; __le32 actual; ... } */
int config_entry(struct pt_regs *ctx)
{
	if (in_worker() && PT_REGS_PARM2(ctx) == 0 && PT_REGS_PARM4(ctx) == 4)
		return go_on(ctx, ANY_CALL, ENTERED);
	return 0;
}

/* virtqueue_add_outbuf(vq, sg, ...): without BTF, the length of the array shows the pages. The queue
 * is compared because an interrupt may send on another one in the middle of the ack. */
int outbuf_entry(struct pt_regs *ctx)
{
	const struct layout *k = known();
	struct task_calls *t = current_calls();

	if (!k || !t || !is_open(t, CALL_ACK) || t->slot[CALL_ACK].asked != UNKNOWN_PAGES ||
	    t->slot[CALL_ACK].object != PT_REGS_PARM1(ctx))
		return 0;
	credit(k, t, kernel_u32(PT_REGS_PARM2(ctx) + 12) / 4);
	return 0;
}

/* virtqueue_add_inbuf(vq, sg, ...): without BTF, the blocks that free page hinting lends. */
int inbuf_entry(struct pt_regs *ctx)
{
	struct task_calls *t = current_calls();

	if (t && is_open(t, CALL_HINT))
		t->slot[CALL_HINT].done += sg_pages(PT_REGS_PARM2(ctx));
	return 0;
}

/* balloon_page_enqueue(b_dev_info, page): the size worker's, or of a worker that was entered before
 * its own probe was there. */
int enqueue_entry(struct pt_regs *ctx)
{
	const struct layout *k = known();
	struct task_calls *t = in_worker();

	if (t)
		t->slot[CALL_WORKER].done++;
	else if (k && !k->ack_pages)
		emit_moment(KIND_FILL, 1, 0, FLAG_PARTIAL, 0);
	return 0;
}

#define REPORT_BLOCKS 32 /* PAGE_REPORTING_CAPACITY */

/* virtballoon_free_page_report(prdev, sg, nents): the sum is too much for `entered`'s verification. */
int report_entry(struct pt_regs *ctx)
{
	const struct layout *k = known();
	u32 zero = 0, *reported = reported_now.lookup(&zero), pages = 0;
	u64 sg = PT_REGS_PARM2(ctx);
	u32 blocks = PT_REGS_PARM3(ctx);

	if (!k || !reported)
		return 0;
#pragma unroll
	for (int i = 0; i < REPORT_BLOCKS; i++) {
		if (i < blocks)
			pages += sg_pages(sg + i * k->sg_bytes);
	}
	*reported = k->sg_bytes ? pages : UNKNOWN_PAGES;
	return go_on(ctx, ANY_CALL, ENTERED);
}

/* The configuration change interrupt, virtballoon_changed(vdev). The task it came upon may be in the
 * middle of a program above: its calls are not touched. */
int notice_entry(struct pt_regs *ctx)
{
	emit_moment(KIND_NOTICE, 0, 0, 0, NO_TASK);
	return 0;
}

/* ---- the OOM killer's victim ---- */

static __always_inline void victim_chosen(u64 task)
{
	const struct layout *k = known();
	struct task_calls *t = current_calls();
	bool memcg = t && is_open(t, CALL_OUT_OF_MEMORY) && t->slot[CALL_OUT_OF_MEMORY].object;
	u32 flags = memcg ? FLAG_MEMCG : 0, within_calls = t ? within(t) : 0;

	if (!k)
		return;
	if (task >> 32 && k->task_tgid) /* not a mere process id */
		emit_moment(KIND_OOM_KILL, kernel_u32(task + k->task_tgid), within_calls, flags,
			    task + k->task_comm);
	else
		emit_moment(KIND_OOM_KILL, task >> 32 ? UNKNOWN_PAGES : task, within_calls, flags,
			    NO_NAME);
}

/* mark_oom_victim(task) */
int victim_entry(struct pt_regs *ctx)
{
	victim_chosen(PT_REGS_PARM1(ctx));
	return 0;
}

/* ---- raw tracepoints: their programs are of another type, and cannot go on to the stages ---- */

/* mark_victim(pid), or (task, uid) since commit 72ba14deb40a "mm: oom: enhance mark_victim
 * tracepoint", in v6.8 */
int victim_tracepoint(u64 *arguments)
{
	victim_chosen(arguments[0]);
	return 0;
}

static __always_inline int inner_begin(u32 call)
{
	struct task_calls *t = in_worker();

	if (!t)
		return 0;
	count_entered(kind_of_call(call));
	t->open |= 1 << call;
	t->slot[call].start = bpf_ktime_get_ns();
	t->slot[call].asked = UNKNOWN_PAGES;
	t->slot[call].done = UNKNOWN_PAGES;
	return 0;
}

static __always_inline int inner_end(u32 call, u32 done)
{
	struct task_calls *t = in_worker();

	if (!t || !is_open(t, call))
		return 0;
	t->open &= ~(1 << call);
	emit(kind_of_call(call), &t->slot[call], done, within(t), QUEUE_NONE, 0);
	return 0;
}

/* mm_vmscan_direct_reclaim_begin(order, gfp_flags) */
int reclaim_begin(u64 *arguments)
{
	return inner_begin(CALL_RECLAIM);
}

/* mm_vmscan_direct_reclaim_end(nr_reclaimed) */
int reclaim_end(u64 *arguments)
{
	return inner_end(CALL_RECLAIM, pages32(arguments[0]));
}

/* mm_compaction_begin and mm_compaction_end: one zone */
int compact_begin(u64 *arguments)
{
	return inner_begin(CALL_COMPACT);
}

int compact_end(u64 *arguments)
{
	return inner_end(CALL_COMPACT, UNKNOWN_PAGES);
}

/* mm_vmscan_wakeup_kswapd: kswapd slept and is woken */
int kswapd_tracepoint(u64 *arguments)
{
	struct task_calls *t = in_worker();

	if (t)
		emit_moment(KIND_KSWAPD_WAKE, UNKNOWN_PAGES, within(t), 0, 0);
	return 0;
}
