//go:build linux && perf

package workload

// limit is the highest value of one figure, and its reason.
type limit struct {
	name string
	max  float64
	why  string
}

// limits hold the figures that no change may make worse unnoticed. None is a
// time: on a shared machine a time depends on the other processes. Counts of
// allocations, bytes and system calls do not depend on that, or little, and the
// two CPU times of a ratio are measured side by side. A change that makes a
// figure better lowers its limit; one that raises a limit states the benefit.
var limits = []limit{
	{"decode: allocations", 0, "a frame is decoded in the buffer that it was read into"},
	{"decode: bytes", 0, "as above"},
	{
		"decode, in two reads: allocations", 0.01,
		"the buffer of a partial message is pooled; the collector may empty the pool",
	},
	{"decode, in two reads: bytes", 10, "as above"},

	{"envelope, parsed: allocations", 0, "its parts are slices of the message"},
	{"envelope, parsed: bytes", 0, "as above"},
	{
		"envelope, typed handler: allocations", 4.1,
		"4: the value of the request with its two strings, and the request_id",
	},
	{"envelope, typed handler: bytes", 62, "5 % above 59"},

	{
		"join and leave: allocations", 7.5,
		"3 to 7: the room is empty in between, and then keeps neither a table nor a list of tables",
	},
	{"join and leave: bytes", 170, "as above; 24 are the membership"},

	{
		"accept and upgrade: allocations", 12,
		"11, 5 of them gnet's: client, ID, request head, URL, response, frame; and the growth of the tables",
	},
	{"accept and upgrade: bytes", 1410, "5 % above 1,340; 530 stay"},
	{"accept and upgrade: write calls", 1.2, "1: the response; and now and then a wake-up of a loop"},

	{"idle: heap bytes for each connection", 600, "5 % above 571, with one room joined"},
	{"idle: heap objects for each connection", 5.2, "5, and the growth of the tables"},
	{"idle: goroutines for each connection", 0, "the library's first promise"},

	{"echo, 16 in flight: allocations", 0.01, "an inline echo allocates nothing; the runtime now and then"},
	{"echo, 16 in flight: bytes", 2, "as above"},
	{"echo, 16 in flight: system calls", 0.1, "1/16: the answers to the messages of one read leave in one write"},
	{"echo, 16 in flight: CPU, ratio to 1 in flight", 0.35, "0.09; near 1 if answers did not share reads and writes"},

	{
		"fanout, 1 outstanding: system calls", 0.02,
		"0.015 with batched writes: 4 for the 500 members on a loop, and the wake-ups",
	},
	{"fanout, 64 outstanding: allocations", 0.02, "7 for a publish to 1,000 members, none for a member"},
	{"fanout, 64 outstanding: bytes", 2, "0.9: the frame of 528 bytes, once for 1,000 members, and its delivery"},
	{"fanout, 64 outstanding: system calls", 0.1, "0.03: deliveries of one batch share a write; 1 without batches"},
	{"fanout, 64 outstanding: CPU, ratio to 1 outstanding", 0.25, "0.05; near 1 without batches"},
}
