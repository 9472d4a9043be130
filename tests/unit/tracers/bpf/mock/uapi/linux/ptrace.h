/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in for BPF where the text of bpf/balloon.c is compiled for this machine: maps are arrays
 * behind the functions that BCC gives them, helpers read what the test has set. */
struct pt_regs {
	u64 first, second, third, fourth, result;
};
#define PT_REGS_PARM1(c) ((c)->first)
#define PT_REGS_PARM2(c) ((c)->second)
#define PT_REGS_PARM3(c) ((c)->third)
#define PT_REGS_PARM4(c) ((c)->fourth)
#define PT_REGS_RC(c) ((c)->result)

/* The machine at this moment, set by the test. */
u64 mock_now, mock_task, mock_struct, mock_ns_task, mock_cookie;
u32 mock_cpu, mock_ring_full, mock_written;
char mock_comm[16];
void (*mock_interrupt)(void); /* comes once, when a program reads the clock */
struct balloon_event mock_events[1 << 16], mock_reserved;

static u64 bpf_get_current_pid_tgid(void) { return mock_task; }
static u64 bpf_get_current_task(void) { return mock_struct; }
static u32 bpf_get_smp_processor_id(void) { return mock_cpu; }
static void bpf_get_current_comm(void *name, u32 size) { memcpy(name, mock_comm, size); }
static u64 bpf_get_attach_cookie(void *ctx) { return mock_cookie; }
static u64 bpf_ktime_get_ns(void)
{
	void (*interrupt)(void) = mock_interrupt;

	mock_interrupt = 0;
	if (interrupt)
		interrupt();
	return mock_now;
}
static long bpf_get_ns_current_pid_tgid(u64 device, u64 inode, void *ids, u32 size)
{
	if (!inode)
		return -22;
	memcpy(ids, &mock_ns_task, size);
	return 0;
}
static long bpf_probe_read_kernel(void *to, u32 size, const void *from)
{
	if ((u64)from < 4096) {
		memset(to, 0, size);
		return -14;
	}
	memcpy(to, from, size);
	return 0;
}
static long bpf_get_func_arg(u64 *ctx, u32 n, u64 *value) { return *value = ctx[n], 0; }
static long bpf_get_func_ret(u64 *ctx, u64 *value) { return *value = ctx[4], 0; }

#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_FORCE_WAKEUP 2
u32 mock_woken;
static void *reserve(u64 size) { return mock_ring_full ? 0 : &mock_reserved; }
static void submit(void *event, u64 flags)
{
	mock_woken += flags == BPF_RB_FORCE_WAKEUP;
	mock_events[mock_written++ & 0xffff] = mock_reserved;
}
#define BPF_RINGBUF_OUTPUT(name, pages) \
	static struct { void *(*ringbuf_reserve)(u64); void (*ringbuf_submit)(void *, u64); } name = { reserve, submit }

#define MAP __attribute__((section("maps")))
extern char __start_maps[], __stop_maps[];
void mock_reset(void) { memset(__start_maps, 0, __stop_maps - __start_maps); mock_written = mock_woken = 0; }

#define BPF_TABLE(kind, K, V, name, N) \
	MAP V name##_values[N]; MAP K name##_keys[N]; MAP char name##_used[N]; \
	static int name##_at(const K *key) { for (int i = 0; i < N; i++) if (name##_used[i] && name##_keys[i] == *key) return i; return -1; } \
	static V *name##_lookup(K *key) { int i = name##_at(key); return i < 0 ? 0 : &name##_values[i]; } \
	static void name##_delete(K *key) { int i = name##_at(key); if (i >= 0) name##_used[i] = 0; } \
	static int name##_update(K *key, V *value) \
	{ \
		int i = name##_at(key); \
		for (int free = 0; i < 0 && free < N; free++) if (!name##_used[free]) i = free; \
		if (i < 0) return -7; \
		name##_used[i] = 1; name##_keys[i] = *key; name##_values[i] = *value; \
		return 0; \
	} \
	static struct { V *(*lookup)(K *); void (*delete)(K *); int (*update)(K *, V *); } name = \
		{ name##_lookup, name##_delete, name##_update }
#define BPF_ARRAY(name, V, N) \
	MAP V name##_values[N]; \
	static V *name##_lookup(u32 *key) { return *key < N ? &name##_values[*key] : 0; } \
	static struct { V *(*lookup)(u32 *); } name = { name##_lookup }
#define BPF_F_TABLE(kind, K, V, name, N, flags) BPF_ARRAY(name, V, N)
