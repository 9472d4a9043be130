// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * One event for each call of the balloon driver.
 *
 * 1. The driver's calls. update_balloon_size_func, the size worker, is run when the host changed its
 *    target. It reads the target (config get), and takes one chunk in (fill_balloon, mostly inlined)
 *    or gives one back (leak_balloon), at most 256 pages each, and tells the host (tell_host: the
 *    ack). Memory that it allocates may be reclaimed, which may ask a shrinker (count, scan), be
 *    compacted, which may move the balloon's own pages (migrate, with two acks), or run out
 *    (out_of_memory, the OOM notifier). Scan, notifier, remove and freeze leak as well. Reporting and
 *    hinting of free pages have workers of their own.
 *
 * 2. Pairing. A call's entry is noted in a slot of its task, its return writes the event. A return may
 *    never be seen: the kernel ran out of instances of a return probe, or skipped a program. Calls of a
 *    task nest, so what is open although it cannot be is known to have lost its return, and is counted
 *    as `missed`: what was entered within a call that returns; what is entered again; what cannot be a
 *    caller of the call that is entered (`callers` in state.py); all of a task that exits. A fill or
 *    leak that lost its return is written all the same, for its acks tell its pages, with the flag
 *    `missed` and without a duration.
 *
 * 3. Causes. Which calls a task is in when a leak returns tells its cause. So nothing may be traced
 *    within a call that is not: see PHASES in state.py. While probes are being attached, calls are
 *    followed but not counted; when the recording ends, only what is within a traced call is traced,
 *    and then nothing: detaching takes as long as it takes.
 *
 * 4. Acks are the truth of a fill. fill_balloon is inlined almost everywhere; the array of page numbers
 *    that the worker sends on the queue `inflate` is what it took in. An ack is also all there is to
 *    know of a fill or leak whose entry was not traced: it is written in its place, `partial`.
 *
 * 5. Hinting. The driver counts the blocks it has lent; only report_free_page_func lends and takes back,
 *    but the shrinker frees some as well. The sum of what is lent and what the shrinker ever freed
 *    changes by hinting alone, but the shrinker's part is known when its scan returns, not before.
 *    While a scan goes on, a sum that fell is therefore left to the next call to account for.
 *
 * 6. Counted and not written: a call that did nothing (`skipped`), one the ring (`lost`) or the table of
 *    tasks (`untracked`) had no room for, one whose return was `missed`. For each kind the entered calls
 *    are the sum of these, the written, and those still open, which the recorder takes from `calls`.
 *
 * 7. Sums. Each call that an event tells of is added to sums as well, where there is always room: so
 *    they witness what the ring lost, and are all there is where nobody wants events (`silent`). Nothing
 *    counts as written then.
 *
 * The programs come in three kinds, for the three means of attachment (attach/means.py); all of them
 * do the same, and know the call they are about by a number.
 * A kprobe's programs run with preemption off, a trampoline's with preemption on: what is shared is
 * changed atomically. What is a task's own needs no care: the programs of interrupts leave it alone.
 *
 * Compiled by BCC against stubs/, behind the declarations of events.py (the event) and state.py (what
 * is kept between entry and return, what is known of this kernel, the rows of the calls), with:
 *   CPUS             possible CPUs
 *   RING_PAGES       4 KiB pages of the ring
 */
#include <uapi/linux/ptrace.h>
#include <helpers.h>

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

struct hinting {
	u64 work; /* address of the balloon's report_free_page_work */
	u64 taken_back; /* pages, by the shrinker, ever */
	u64 accounted; /* pages lent_ever() that the events written so far tell of */
	u64 scans; /* of the shrinker, that have begun and not returned */
};

/* What a call was given. */
struct arguments {
	u64 first, second, third, fourth;
};

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_TABLE("hash", u32, struct task_calls, calls, 512);
BPF_F_TABLE("array", u32, struct cpu_counters, counters, CPUS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct cpu_sums, sums, CPUS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", u32, struct control, control, 1, BPF_F_MMAPABLE);
BPF_ARRAY(layout, struct layout, 1);
BPF_ARRAY(fresh, struct task_calls, 1); /* zeros: too large for the stack */
BPF_F_TABLE("array", u32, u64, last_target, 1, BPF_F_MMAPABLE); /* one more; 0: none read yet */
BPF_ARRAY(hinting, struct hinting, 1);
BPF_F_TABLE("array", u32, struct sent_stats, sent_stats, 1, BPF_F_MMAPABLE);

/* Hides from the compiler what it knows of a number, or it makes of it what the verifier does not
 * understand. */
#define HIDE(number) asm volatile("" : "+r"(number))

/* Of a constant 0 the compiler would make an atomic or, which kernels before 5.12 refuse. */
static __always_inline void add(u64 *sum, u64 what)
{
	HIDE(what);
	__sync_fetch_and_add(sum, what);
}

static __always_inline struct counters *counters_of(u32 kind)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct cpu_counters *here = counters.lookup(&cpu);

	return here && kind < KINDS ? &here->kind[kind] : 0;
}

#define COUNT(of_kind, counter)                                                                     \
	do {                                                                                        \
		struct counters *n = counters_of(of_kind);                                          \
                                                                                                    \
		if (n)                                                                              \
			add(&n->counter, 1);                                                        \
	} while (0)

/* What is known of this kernel; never 0 but to the verifier. */
static __always_inline const struct layout *known(void)
{
	u32 zero = 0;

	return layout.lookup(&zero);
}

static __always_inline struct hinting *hints(void)
{
	u32 zero = 0;

	return hinting.lookup(&zero);
}

static __always_inline struct control *shared(void)
{
	u32 zero = 0;

	return control.lookup(&zero);
}

static __always_inline u64 phase(void)
{
	struct control *c = shared();

	return c ? *(volatile u64 *)&c->phase : PHASE_ATTACHING;
}

static __always_inline struct task_calls *current_calls(void)
{
	u32 tid = bpf_get_current_pid_tgid();

	return calls.lookup(&tid);
}

static __always_inline void forget_calls(void)
{
	u32 tid = bpf_get_current_pid_tgid();

	calls.delete(&tid);
}

static __always_inline u32 bit(u32 call)
{
	return 1u << (call & (SLOTS - 1));
}

/* Masked rather than compared: the verifier then knows the bounds in whatever register they are. */
static __always_inline struct slot *slot_of(struct task_calls *t, u32 call)
{
	return &t->slot[call & (SLOTS - 1)];
}

static __always_inline bool is_open(const struct task_calls *t, u32 call)
{
	return t->open & bit(call);
}

static __always_inline bool is_traced(const struct task_calls *t, u32 call)
{
	return t->traced & bit(call);
}

/* Is this task in the size worker? Some functions have many other callers. */
static __always_inline bool in_worker(const struct task_calls *t)
{
	return t && is_open(t, CALL_WORKER);
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

/* ---- adding a call to the sums ---- */

/* 1 if it is not 0, without a branch: the verifier would go every way. number: below 2^63. */
static __always_inline u64 nonzero(u64 number)
{
	HIDE(number);
	return -number >> 63;
}

/* row = number, where wanted is 1 and not 0. */
#define CHOOSE(row, wanted, number)                                                                 \
	do {                                                                                        \
		u64 mask = -(u64)(wanted);                                                          \
                                                                                                    \
		(row) = ((row) & ~mask) | ((number) & mask);                                        \
	} while (0)

static __always_inline u64 is_equal(u64 one, u64 other)
{
	return 1 - nonzero(one ^ other);
}

static __always_inline u64 row_of(u32 kind, u32 within, u32 queue)
{
	RETURN_ROW_OF(kind, within, queue)
}

/* The slot of a duration: the number of bits of ns - 1, above the first. */
static __always_inline u64 slot_of_duration(u64 ns)
{
	u64 left = ns - nonzero(ns), bits = 0, half;

#pragma unroll
	for (int step = 32; step; step >>= 1) {
		half = nonzero(left >> step) * step;
		left >>= half;
		bits += half;
	}
	bits += left;
	if (bits < SUM_FIRST_BITS)
		return 0;
	bits -= SUM_FIRST_BITS;
	return bits < SUM_SLOTS ? bits : SUM_SLOTS - 1;
}

static __always_inline void add_pages(u64 *sum, u32 kind, u32 pages)
{
	if (KINDS_OF_PAGES >> kind & 1 && pages != UNKNOWN_PAGES)
		add(sum, pages);
}

static __always_inline struct sums *sums_of(u32 kind, u32 within, u32 queue)
{
	u64 row = row_of(kind, within, queue);
	u32 cpu = bpf_get_smp_processor_id();
	struct cpu_sums *here = sums.lookup(&cpu);

	HIDE(row); /* or it is not masked */
	return here ? &here->row[row & (SUM_ROWS - 1)] : 0;
}

/* A call that an event tells of. missed: its duration is not known. */
static __always_inline void sum_up(u32 kind, u32 within, u32 queue, u32 asked, u32 done,
				   u64 duration, bool missed)
{
	struct sums *s = sums_of(kind, within, queue);

	if (!s)
		return;
	add(&s->calls, 1);
	add_pages(&s->asked, kind, asked);
	add_pages(&s->done, kind, done);
	if (missed)
		return;
	add(&s->ns, duration);
	add(&s->slot[slot_of_duration(duration)], 1);
}

/* ---- writing an event ---- */

static __always_inline u64 wake_flag(const struct layout *k)
{
	struct control *c = shared();

	if (!c)
		return BPF_RB_NO_WAKEUP;
	add(&c->written, 1);
	if (c->idle) {
		c->idle = 0;
		return BPF_RB_FORCE_WAKEUP;
	}
	return c->written - c->read > k->wake_events ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* Where no events are written, what wakes the reader is one that it throws away. */
static __always_inline void wake_silently(void)
{
	struct control *c = shared();
	struct balloon_event *e;

	if (!c || !c->idle)
		return;
	c->idle = 0;
	e = events.ringbuf_reserve(sizeof(*e));
	if (e)
		events.ringbuf_submit(e, BPF_RB_FORCE_WAKEUP);
}

static __always_inline void count_lost(u32 kind, u32 pages, bool missed)
{
	struct counters *n = counters_of(kind);

	if (!n)
		return;
	if (!missed) /* else it is counted as that */
		add(&n->lost, 1);
	add_pages(&n->lost_pages, kind, pages);
}

#define PF_KSWAPD 0x00020000 /* include/linux/sched.h */

static __always_inline u32 kswapd_flag(const struct layout *k)
{
	if (!k->task_flags)
		return 0;
	return kernel_u32(bpf_get_current_task() + k->task_flags) & PF_KSWAPD ? FLAG_KSWAPD : 0;
}

/* What is the same in every event. id: as bpf_get_current_pid_tgid tells it. */
static __always_inline void fill_in(struct balloon_event *e, u32 kind, u64 id, u32 done, u32 within,
				    u32 flags)
{
	e->done = done;
	e->tid = (u32)id;
	e->pid = id >> 32;
	e->cpu = bpf_get_smp_processor_id();
	e->kind = kind;
	e->within = within;
	e->flags = flags;
	e->reserved = 0;
}

/* The event of a call of this task that has returned, or whose return was missed. */
static __always_inline void emit(const struct layout *k, u32 kind, const struct slot *slot, u32 done,
				 u32 within, u32 queue, u32 flags)
{
	bool missed = flags & FLAG_MISSED;
	u64 now = bpf_ktime_get_ns(), duration;
	struct balloon_event *e;

	/* The clocks of two CPUs may differ by a little. */
	duration = missed || now < slot->start ? 0 : now - slot->start;
	sum_up(kind, within, queue, slot->asked, done, duration, missed);
	if (k->silent) {
		wake_silently();
		return;
	}
	e = events.ringbuf_reserve(sizeof(*e));
	if (!e) {
		count_lost(kind, done, missed);
		return;
	}
	if (!missed)
		COUNT(kind, written);
	fill_in(e, kind, bpf_get_current_pid_tgid(), done, within, flags | kswapd_flag(k));
	e->start_ns = slot->start;
	e->duration_ns = duration;
	e->asked = slot->asked;
	e->queue = queue;
	bpf_get_current_comm(e->comm, sizeof(e->comm));
	events.ringbuf_submit(e, wake_flag(k));
}

#define NO_TASK 1ull
#define NO_NAME 2ull

/* An event without a duration. comm: address of a task's name; 0: the current task's; NO_NAME: of a
 * task whose name is not visible; NO_TASK: an interrupt has nothing to do with the task it came upon. */
static __always_inline void emit_moment(const struct layout *k, u32 kind, u32 done, u32 within,
					u32 flags, u64 comm)
{
	u64 id = comm == NO_TASK ? 0 : bpf_get_current_pid_tgid();
	struct balloon_event *e;

	COUNT(kind, entered);
	sum_up(kind, within, QUEUE_NONE, UNKNOWN_PAGES, done, 0, true);
	if (k->silent) {
		wake_silently();
		return;
	}
	e = events.ringbuf_reserve(sizeof(*e));
	if (!e) {
		count_lost(kind, done, false);
		return;
	}
	COUNT(kind, written);
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
	events.ringbuf_submit(e, wake_flag(k));
}

/* ---- a return that was not seen ---- */

/* A run of the size worker was a fill if it took pages in, or tried to. */
static __always_inline bool was_fill(const struct task_calls *t, const struct slot *worker)
{
	if (worker->done)
		return true;
	if (t->seen & SEEN_LEAK)
		return false;
	if (worker->asked != UNKNOWN_PAGES)
		return worker->asked > 0;
	return t->seen & SEEN_SLEEP; /* a worker without work returns at once */
}

/* The kind of event that a call of this task is about, 0 for none. The worker's is counted when it is
 * known to be one. */
static __always_inline u32 kind_of(const struct layout *k, const struct task_calls *t, u32 call)
{
	if (call != CALL_WORKER)
		return kind_of_call(call);
	if (k->fill_from == FILL_FROM_FILL_BALLOON || !was_fill(t, &t->slot[CALL_WORKER]))
		return 0;
	return KIND_FILL;
}

#define LEAK_OR_FILL (bit(CALL_LEAK) | bit(CALL_FILL) | bit(CALL_WORKER))

/* Fills and leaks are written all the same, from the inside out. */
static __always_inline void write_missed(const struct layout *k, struct task_calls *t, u32 which)
{
	for (int i = 0; i < 3; i++) {
		u32 call = i == 0 ? CALL_LEAK : i == 1 ? CALL_FILL : CALL_WORKER;
		struct slot *s = slot_of(t, call);
		u32 kind = kind_of(k, t, call);
		struct counters *n = counters_of(kind);

		if (!(which & bit(call)) || !kind || !n)
			continue;
		if (call == CALL_WORKER)
			add(&n->entered, 1);
		add(&n->missed, 1);
		emit(k, kind, s, s->done, s->outer & WITHIN_MASK, QUEUE_NONE, FLAG_MISSED);
	}
}

/* These calls, bits of enum call, are not open although it looks so. */
static __always_inline void close_missed(const struct layout *k, struct task_calls *t, u32 which)
{
	struct cpu_counters *here;
	struct hinting *h;
	u32 cpu;

	which &= t->open;
	if (!which)
		return;
	h = hints();
	if (h && which & bit(CALL_SCAN))
		add(&h->scans, -1);
	t->open &= ~which;
	which &= t->traced;
	t->traced &= ~which;
	if (which & LEAK_OR_FILL)
		write_missed(k, t, which);
	cpu = bpf_get_smp_processor_id();
	here = counters.lookup(&cpu);
	if (!here)
		return;
#pragma unroll
	for (int call = 0; call < CALLS; call++) {
		if (kind_of_call(call) && which & bit(call) & ~LEAK_OR_FILL)
			add(&here->kind[kind_of_call(call)].missed, 1);
	}
}

/* ---- a call is entered ---- */

/* The pages of the open ack are the done of the call that moves them. Where that call is not traced,
 * the ack is all there is to know of it: its return tells. */
static __always_inline void credit(const struct layout *k, struct task_calls *t, u32 pages)
{
	u32 fill = k->fill_from == FILL_FROM_FILL_BALLOON ? CALL_FILL : CALL_WORKER;

	t->slot[CALL_ACK].asked = pages;
	if (is_open(t, CALL_MIGRATE))
		return;
	if (is_traced(t, CALL_LEAK))
		t->slot[CALL_LEAK].done += pages;
	else if (t->queue == QUEUE_DEFLATE)
		t->orphan = KIND_LEAK;
	else if (t->queue == QUEUE_INFLATE && !is_traced(t, fill))
		t->orphan = KIND_FILL;
	else if (t->queue == QUEUE_INFLATE && k->fill_from != FILL_FROM_ENQUEUES)
		slot_of(t, fill)->done += pages;
}

/* struct virtqueue { struct list_head list; callback; const char *name; ... } */
static __always_inline char queue_initial(u64 vq)
{
	return kernel_u32(kernel_u64(vq + 24));
}

/* tell_host(vb, vq) */
static __always_inline void ack_entered(const struct arguments *a, const struct layout *k,
					struct task_calls *t)
{
	char initial;

	t->queue = QUEUE_OTHER;
	t->orphan = 0;
	if (!k->ack_pages)
		return;
	initial = queue_initial(a->second);
	t->queue = initial == 'i' ? QUEUE_INFLATE : initial == 'd' ? QUEUE_DEFLATE : QUEUE_OTHER;
	if (k->num_pfns)
		credit(k, t, kernel_u32(a->first + k->num_pfns));
}

/* struct scatterlist { unsigned long page_link; u32 offset; u32 length; ... } */
static __always_inline u32 sg_bytes(u64 sg)
{
	return kernel_u32(sg + 12);
}

#define BALLOON_PAGE_BYTES 4096
#define REPORT_BLOCKS 32 /* PAGE_REPORTING_CAPACITY */

/* virtballoon_free_page_report(prdev, sg, nents). Without a branch for each block: what does not count
 * is read as well, and masked, for the verifier would go every way. */
static __always_inline u32 pages_in_blocks(const struct arguments *a, const struct layout *k)
{
	u64 blocks = (u32)a->third, counts;
	u32 pages = 0;

	if (!k->sg_bytes)
		return UNKNOWN_PAGES;
#pragma clang loop unroll(disable)
	for (u64 i = 0; i < REPORT_BLOCKS; i++) {
		counts = i - blocks;
		HIDE(counts);
		pages += sg_bytes(a->second + i * k->sg_bytes) / BALLOON_PAGE_BYTES & -(counts >> 63);
	}
	return pages;
}

static __always_inline u32 asked_pages(const struct arguments *a, const struct layout *k, u32 call)
{
	switch (asked_of_call(call)) {
	case ASKED_ONE:
		return 1;
	case ASKED_SECOND:
		return call == CALL_LEAK && !k->leak_arguments ? UNKNOWN_PAGES : pages32(a->second);
	case ASKED_TO_SCAN: /* struct shrink_control { gfp_t; int nid; unsigned long nr_to_scan; ... } */
		return pages32(kernel_u64(a->second + 8));
	case ASKED_IN_BLOCKS:
		return pages_in_blocks(a, k);
	default:
		return UNKNOWN_PAGES;
	}
}

static __always_inline u64 kept(const struct arguments *a, u32 call)
{
	switch (kept_of_call(call)) {
	case KEPT_FIRST:
		return a->first;
	case KEPT_SECOND:
		return a->second;
	case KEPT_THIRD:
		return a->third;
	default:
		return 0;
	}
}

/* Pages that free page hinting has on loan, and those the shrinker took back before. */
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

/* What is special in entering a call. */
static __always_inline void note_entry(const struct arguments *a, const struct layout *k,
				       struct task_calls *t, u32 call)
{
	struct hinting *h = hints();

	if (call == CALL_WORKER)
		t->seen = 0;
	else if (call == CALL_ACK)
		ack_entered(a, k, t);
	else if (call == CALL_OOM)
		t->slot[CALL_OOM].done = pages32(kernel_u64(a->third));
	else if (call == CALL_SCAN && h)
		add(&h->scans, 1);
	else if (call == CALL_HINT)
		hint_entered(k, a->first);
	else if (call == CALL_SLEEP)
		t->seen |= SEEN_SLEEP;
	else if (call == CALL_OUT_OF_MEMORY)
		t->slot[CALL_OUT_OF_MEMORY].object =
			k->oom_memcg ? kernel_u64(a->first + k->oom_memcg) : 0;
}

/* This task's calls, made if it is in none; 0 if there is no room. */
static __always_inline struct task_calls *make_calls(void)
{
	u32 tid = bpf_get_current_pid_tgid(), zero = 0;
	struct task_calls *zeros = fresh.lookup(&zero);

	if (!zeros)
		return 0;
	calls.update(&tid, zeros);
	return calls.lookup(&tid);
}

/* Whose calls they are: another task's than those that were kept, perhaps. */
static __always_inline void name(struct task_calls *t)
{
	t->pid = bpf_get_current_pid_tgid() >> 32;
	bpf_get_current_comm(t->comm, sizeof(t->comm));
}

static __always_inline void count_untracked(const struct layout *k, u32 call)
{
	struct counters *n = counters_of(kind_of_call(call));

	if (!n || (call == CALL_WORKER && k->fill_from == FILL_FROM_FILL_BALLOON))
		return;
	add(&n->entered, 1);
	add(&n->untracked, 1);
}

/* Only where the size worker reads the target: struct virtio_balloon_config { __le32 num_pages; ... } */
static __always_inline bool reads_target(const struct arguments *a)
{
	return a->second == 0 && a->fourth == 4;
}

/* Reclaim sleeps as well. */
static __always_inline bool is_others_sleep(const struct task_calls *t)
{
	return t->open & (bit(CALL_RECLAIM) | bit(CALL_COMPACT) | bit(CALL_OUT_OF_MEMORY));
}

/* Is this entry of a function one of the calls that are to be traced? */
static __always_inline bool is_of_interest(const struct arguments *a, const struct task_calls *t,
					   u32 call, u64 now)
{
	if (CALLS_IN_WORKER & bit(call) && !in_worker(t))
		return false;
	if (call == CALL_CONFIG && !reads_target(a))
		return false;
	if (call == CALL_SLEEP && t && is_others_sleep(t))
		return false;
	return now < PHASE_ENDING || (now == PHASE_ENDING && t && t->traced);
}

static __always_inline void entered(const struct arguments *a, u32 call)
{
	struct task_calls *t = current_calls();
	const struct layout *k = known();
	u64 now = phase();
	struct slot *s;

	if (!k || !is_of_interest(a, t, call, now))
		return;
	if (!t)
		t = make_calls();
	if (!t) {
		if (now != PHASE_ATTACHING)
			count_untracked(k, call);
		return;
	}
	if (!t->open)
		name(t);
	s = slot_of(t, call);
	close_missed(k, t, ~callers_of_call(call) | (is_open(t, call) ? ~s->outer : 0));
	s->outer = t->open;
	s->start = bpf_ktime_get_ns();
	s->object = kept(a, call);
	s->asked = asked_pages(a, k, call);
	s->done = 0;
	t->open |= bit(call);
	if (now != PHASE_ATTACHING) {
		t->traced |= bit(call);
		if (call != CALL_WORKER)
			COUNT(kind_of_call(call), entered);
	}
	note_entry(a, k, t, call);
}

/* ---- a call returns ---- */

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
	if (!last || *last == (u64)target + 1)
		return false;
	*last = (u64)target + 1;
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
	s->done = 0;
	if (now < before && *(volatile u64 *)&h->scans)
		return; /* the shrinker may be taking them back, see note 5 */
	h->accounted = now;
	*flags |= now < before ? FLAG_RETURNED : 0;
	s->done = now < before ? before - now : now - before;
}

/* What the shrinker freed and no leak within it did are blocks of free page hinting. `result` is in
 * pages of the kernel, `done` so far in those of the balloon. */
static __always_inline void scanned(const struct layout *k, struct slot *s, u64 result, u32 *flags)
{
	struct hinting *h = hints();
	bool stopped = result == ~0ull; /* SHRINK_STOP */
	u64 leaked = s->done, freed = stopped ? 0 : result * k->page_pages;

	if (h && freed > leaked)
		add(&h->taken_back, freed - leaked);
	if (h)
		add(&h->scans, -1);
	s->done = stopped ? 0 : pages32(result);
	*flags |= stopped ? FLAG_STOP : 0;
}

#define STAT_BYTES 10 /* struct virtio_balloon_stat { __virtio16 tag; __virtio64 val; }, packed */

/* The driver has sent what it had written to vb->stats: it is kept for the reader, who comes once a
 * second; hosts ask as often at most. */
static __always_inline void stats_sent(const struct layout *k, struct slot *s)
{
	u32 zero = 0, bytes = k->stats_bytes;
	struct sent_stats *last = sent_stats.lookup(&zero);

	s->done = UNKNOWN_PAGES;
	if (!last || !bytes)
		return;
	if (bytes > sizeof(last->sent))
		bytes = sizeof(last->sent);
	HIDE(bytes);
	bytes &= 255; /* for the verifier */
	if (bytes > sizeof(last->sent) ||
	    bpf_probe_read_kernel(last->sent, bytes, (void *)(s->object - k->stats_work + k->stats)))
		return;
	last->bytes = bytes;
	last->answered_ns = bpf_ktime_get_ns();
	last->answers += 1; /* at last: whoever reads sees by it that there are new ones */
	s->done = bytes / STAT_BYTES;
}

static __always_inline u32 done_pages(u64 result, const struct slot *s, u32 call)
{
	switch (done_of_call(call)) {
	case DONE_UNKNOWN:
		return UNKNOWN_PAGES;
	case DONE_RESULT:
		return pages32(result);
	case DONE_SUCCESS:
		return (u32)result == 0;
	case DONE_ASKED:
		return s->asked;
	case DONE_ASKED_IF_SUCCESS:
		return (u32)result ? 0 : s->asked;
	case DONE_GROWN:
		return pages32(kernel_u64(s->object)) - s->done;
	case DONE_SPECIAL:
		return s->done;
	default:
		return 0;
	}
}

/* What is special in a return; whether there is an event to write. */
static __always_inline bool note_return(const struct layout *k, struct task_calls *t, struct slot *s,
					u32 call, u64 result, u32 *flags)
{
	struct hinting *h = hints();

	if (call == CALL_LEAK) {
		if (within(t) == WITHIN_WORKER)
			t->seen |= SEEN_LEAK;
		if (is_open(t, CALL_SCAN))
			t->slot[CALL_SCAN].done += s->done;
	} else if (call == CALL_REMOVE) {
		if (h)
			h->work = 0; /* the next balloon may lie at the same address */
	} else if (call == CALL_COUNT) {
		if (s->done)
			return true;
		if (is_traced(t, CALL_COUNT)) /* in an OOM, all that reclaim ask again and again */
			COUNT(KIND_COUNT, skipped);
		return false;
	} else if (call == CALL_SCAN) {
		scanned(k, s, result, flags);
	} else if (call == CALL_CONFIG) {
		return is_traced(t, CALL_CONFIG) && target_changed(k, t, s);
	} else if (call == CALL_HINT) {
		hinted(k, s, flags);
	} else if (call == CALL_REPORT) {
		if (is_open(t, CALL_REPORTING) && s->done != UNKNOWN_PAGES)
			t->slot[CALL_REPORTING].done += s->done;
	} else if (call == CALL_STATS) {
		stats_sent(k, s);
	}
	return true;
}

/* An ack stands in for the fill or leak that it belongs to and that is not traced. */
static __always_inline void emit_orphan(const struct layout *k, const struct task_calls *t,
					const struct slot *ack)
{
	bool whole = t->orphan == KIND_LEAK && k->leak_from_acks;

	COUNT(t->orphan, entered);
	emit(k, t->orphan, ack, ack->done, within(t) & ~WITHIN_LEAK, QUEUE_NONE,
	     whole ? 0 : FLAG_PARTIAL);
}

static __always_inline void write_return(const struct layout *k, struct task_calls *t,
					 const struct slot *s, u32 call, u32 flags)
{
	u32 kind = call == CALL_CONFIG ? KIND_TARGET : kind_of(k, t, call);

	if (!kind)
		return;
	if (call == CALL_WORKER || call == CALL_CONFIG)
		COUNT(kind, entered);
	emit(k, kind, s, s->done, within(t), call == CALL_ACK ? t->queue : QUEUE_NONE, flags);
	if (call == CALL_ACK && t->orphan)
		emit_orphan(k, t, s);
}

static __always_inline void returned(u64 result, u32 call)
{
	struct task_calls *t = current_calls();
	const struct layout *k = known();
	struct slot *s;
	u32 flags = 0;

	if (!k || !t || !is_open(t, call) || phase() == PHASE_ENDED)
		return;
	s = slot_of(t, call);
	close_missed(k, t, ~(s->outer | bit(call)));
	t->open &= ~bit(call);
	s->done = done_pages(result, s, call);
	if (note_return(k, t, s, call, result, &flags) && is_traced(t, call))
		write_return(k, t, s, call, flags);
	t->traced &= ~bit(call);
	/* The size worker's task runs it again and again: to make its calls anew each time would be a
	 * fifth of what a run costs. They go when the task does. */
	if (!t->open && call != CALL_WORKER)
		forget_calls();
}

/* ---- functions of which the entry alone matters ---- */

/* virtqueue_add_outbuf(vq, sg, ...): without BTF, the length of the array shows the pages. The queue
 * is compared because an interrupt may send on another one in the middle of the ack. */
static __always_inline void sent(const struct arguments *a, const struct layout *k,
				 struct task_calls *t)
{
	if (!t || !is_open(t, CALL_ACK) || t->slot[CALL_ACK].asked != UNKNOWN_PAGES ||
	    t->slot[CALL_ACK].object != a->first)
		return;
	credit(k, t, sg_bytes(a->second) / sizeof(u32));
}

/* virtqueue_add_inbuf(vq, sg, ...): without BTF, the blocks that free page hinting lends, on the queue
 * `free_page_vq`. */
static __always_inline void lent(const struct arguments *a, struct task_calls *t)
{
	if (t && is_open(t, CALL_HINT) && queue_initial(a->first) == 'f')
		t->slot[CALL_HINT].done += sg_bytes(a->second) / BALLOON_PAGE_BYTES;
}

/* balloon_page_enqueue(b_dev_info, page): the size worker's, or of a worker that is not traced. */
static __always_inline void enqueued(const struct layout *k, struct task_calls *t)
{
	if (t && is_traced(t, CALL_WORKER))
		t->slot[CALL_WORKER].done += k->page_pages;
	else if (!k->ack_pages && phase() == PHASE_TRACING)
		emit_moment(k, KIND_FILL, k->page_pages, 0, FLAG_PARTIAL, 0);
}

/* stats_request(vq): an interrupt, as that of the configuration. */
static __always_inline void stats_asked(const struct layout *k)
{
	if (phase() == PHASE_TRACING)
		emit_moment(k, KIND_STATS_ASK, 0, 0, 0, NO_TASK);
}

/* __vm_enough_memory(mm, pages, cap_sys_admin) returns: 0, or -ENOMEM. The one function here that tasks
 * of the guest call all the time: nothing is kept of it from entry to return. */
static __always_inline void answered(const struct layout *k, u64 result)
{
	const struct task_calls *t;

	if ((int)result >= 0 || phase() != PHASE_TRACING)
		return;
	t = current_calls();
	emit_moment(k, KIND_REFUSE, 0, t ? within(t) : 0, 0, 0);
}

/* virtballoon_changed(vdev): the configuration change interrupt. The task it came upon may be in the
 * middle of a program above: its calls are only looked at. The driver calls it itself when it takes
 * the device with a target already set: nothing that the host sent. */
static __always_inline void noticed(const struct layout *k, const struct task_calls *t)
{
	if (phase() != PHASE_TRACING)
		return;
	if (t && (is_open(t, CALL_BIND) || is_open(t, CALL_RESTORE))) {
		COUNT(KIND_NOTICE, entered);
		COUNT(KIND_NOTICE, skipped);
		return;
	}
	emit_moment(k, KIND_NOTICE, 0, 0, 0, NO_TASK);
}

/* mark_oom_victim(task), or its tracepoint: a kill if the OOM killer's own function marks, which counts
 * it in /proc/vmstat; a task that is about to exit anyway is marked as well. */
static __always_inline void marked(u64 task, const struct layout *k, const struct task_calls *t)
{
	bool memcg = t && is_open(t, CALL_OUT_OF_MEMORY) && t->slot[CALL_OUT_OF_MEMORY].object;
	u32 flags = memcg ? FLAG_MEMCG : 0, within_calls = t ? within(t) : 0;

	if (phase() != PHASE_TRACING || (k->kills_marked && !(t && is_open(t, CALL_OOM_KILL))))
		return;
	if (task >> 32 && k->task_tgid) /* not a mere process id */
		emit_moment(k, KIND_OOM_KILL, kernel_u32(task + k->task_tgid), within_calls, flags,
			    task + k->task_comm);
	else
		emit_moment(k, KIND_OOM_KILL, task >> 32 ? UNKNOWN_PAGES : task, within_calls, flags,
			    NO_NAME);
}

/* struct bpf_pidns_info, which BCC's headers may have or not */
struct ids_in_namespace {
	u32 pid;
	u32 tgid;
};

/* Is this the tracer, at the function it calls to see whether its probes fire? */
static __always_inline bool is_proof(const struct layout *k, const struct control *c)
{
	struct ids_in_namespace ids = {};

	return c->prover &&
	       !bpf_get_ns_current_pid_tgid(k->pid_ns_device, k->pid_ns_inode, (void *)&ids,
					    sizeof(ids)) &&
	       ids.tgid == c->prover;
}

static __always_inline void proved(const struct layout *k, bool at_return)
{
	struct control *c = shared();

	if (!c || !is_proof(k, c))
		return;
	c->proof_task = bpf_get_current_pid_tgid();
	add(at_return ? &c->proof_returned : &c->proof_entered, 1);
}

static __always_inline void moment(const struct arguments *a, u32 call)
{
	struct task_calls *t = current_calls();
	const struct layout *k = known();

	if (!k)
		return;
	if (call == CALL_OUTBUF)
		sent(a, k, t);
	else if (call == CALL_INBUF)
		lent(a, t);
	else if (call == CALL_ENQUEUE)
		enqueued(k, t);
	else if (call == CALL_NOTICE)
		noticed(k, t);
	else if (call == CALL_VICTIM)
		marked(a->first, k, t);
	else if (call == CALL_PROOF)
		proved(k, false);
	else if (call == CALL_STATS_ASK)
		stats_asked(k);
}

/* ---- the programs, for each means of attachment ---- */

static __always_inline int at_entry(const struct arguments *a, u32 call)
{
	bool is_call = call < CALLS;

	HIDE(call);
	if (is_call)
		entered(a, call);
	else
		moment(a, call);
	return 0;
}

static __always_inline int at_return(u64 result, u32 call)
{
	const struct layout *k = known();
	bool is_call = call < CALLS;

	HIDE(call);
	if (is_call)
		returned(result, call);
	else if (k && call == CALL_PROOF)
		proved(k, true);
	else if (k && call == CALL_REFUSE)
		answered(k, result);
	return 0;
}

/* Which call a program is about is the cookie of its link; where there is none, the loader puts the
 * number in the place of the question, in the compiled program, and loads it once for each call. The
 * verifier knows the number then, and drops what is about other calls. */

int kprobe_entry(struct pt_regs *ctx)
{
	struct arguments a = {
		.first = PT_REGS_PARM1(ctx),
		.second = PT_REGS_PARM2(ctx),
		.third = PT_REGS_PARM3(ctx),
		.fourth = PT_REGS_PARM4(ctx),
	};

	return at_entry(&a, bpf_get_attach_cookie(ctx));
}

int kprobe_return(struct pt_regs *ctx)
{
	return at_return(PT_REGS_RC(ctx), bpf_get_attach_cookie(ctx));
}

/* What the function does not have stays 0. */
int fentry(u64 *ctx)
{
	struct arguments a = {};

	bpf_get_func_arg(ctx, 0, &a.first);
	bpf_get_func_arg(ctx, 1, &a.second);
	bpf_get_func_arg(ctx, 2, &a.third);
	bpf_get_func_arg(ctx, 3, &a.fourth);
	return at_entry(&a, bpf_get_attach_cookie(ctx));
}

int fexit(u64 *ctx)
{
	u64 result = 0;

	bpf_get_func_ret(ctx, &result);
	return at_return(result, bpf_get_attach_cookie(ctx));
}

/* ---- raw tracepoints ---- */

/* mark_victim(pid), or (task, uid) since commit 72ba14deb40a "mm: oom: enhance mark_victim
 * tracepoint", in v6.8 */
int victim_tracepoint(u64 *arguments)
{
	struct arguments a = { .first = arguments[0] };

	moment(&a, CALL_VICTIM);
	return 0;
}

/* mm_vmscan_direct_reclaim_begin(order, gfp_flags) */
int reclaim_begin(u64 *arguments)
{
	struct arguments a = {};

	entered(&a, CALL_RECLAIM);
	return 0;
}

/* mm_vmscan_direct_reclaim_end(nr_reclaimed) */
int reclaim_end(u64 *arguments)
{
	returned(arguments[0], CALL_RECLAIM);
	return 0;
}

/* mm_compaction_begin and mm_compaction_end: one zone */
int compact_begin(u64 *arguments)
{
	struct arguments a = {};

	entered(&a, CALL_COMPACT);
	return 0;
}

int compact_end(u64 *arguments)
{
	returned(0, CALL_COMPACT);
	return 0;
}

#define GFP_DIRECT_RECLAIM 0x400 /* ___GFP_DIRECT_RECLAIM: never allowed to an interrupt */

/* mm_vmscan_wakeup_kswapd(nid, zid, order, gfp_flags): kswapd slept and is woken. An interrupt that
 * came upon the size worker may wake it as well. */
int kswapd_tracepoint(u64 *arguments)
{
	struct task_calls *t = current_calls();
	const struct layout *k = known();

	if (k && t && is_traced(t, CALL_WORKER) && arguments[3] & GFP_DIRECT_RECLAIM &&
	    phase() != PHASE_ENDED)
		emit_moment(k, KIND_KSWAPD_WAKE, UNKNOWN_PAGES, within(t), 0, 0);
	return 0;
}

/* sched_process_exit: whatever this task is in has lost its return. */
int task_exit(u64 *arguments)
{
	struct task_calls *t = current_calls();
	const struct layout *k = known();

	if (!k || !t || phase() == PHASE_ENDED)
		return 0;
	close_missed(k, t, ~0u);
	forget_calls();
	return 0;
}
