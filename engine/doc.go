// Package engine runs WebSocket connections on gnet's event loops: it accepts
// and enrolls them, decodes inbound frames, queues and writes outbound ones,
// keeps timers, and closes and drains connections. It knows no rooms, no routes
// and no JSON: payloads are opaque. It serves the root package and is no public
// promise.
//
// One shard belongs to each event loop. Only that loop touches the shard's
// state; everything else comes in as a Task through the shard's inbox.
//
// The engine and its loops:
//
//	engine.go           Engine, its settings in ticks, Run
//	config.go           Config, and Handler, the user of the engine
//	errors.go           the errors
//	boot.go             the start of gnet's loops; the waker of each loop
//	gnet.go             gnet's callbacks and settings
//	processors.go       the processor that is kept for other goroutines
//	goexit.go           a handler that ends the goroutine of its loop
//	drain.go            Stop and the end of the loops
//	paceddrain.go       the drain with a pace
//	shard.go            Shard, the state of one loop
//	stats.go            counters; counters.go lists them, drops.go those of drops
//	measure.go          samples of times; handshakes, and the end of a publication's writes
//
// Tasks for a loop:
//
//	post.go             posting, reservations, tasks beside a full ring
//	inbox.go            the order of the tasks of one shard
//	ring.go             the bounded queue in the inbox
//	credits.go          the wait for space in a ring
//	turn.go             the work of a loop on its inbox, its time, the flush at its end
//	work.go             the time in which a loop works
//	watchdog.go         callbacks that hold a loop; stack.go finds the stack of a loop
//
// The life of a connection:
//
//	accept.go           the gate, which permits new connections
//	acceptlistener.go   listeners of gnet's loops, opened and closed by the gate
//	listenwatch_*.go    the gate's wait for connections
//	pace.go             the rate of new connections
//	admission.go        the limits of an address
//	descriptors*.go     the free descriptors of the process
//	listen.go           the address: ports and Unix sockets
//	serve.go            listeners of the application
//	enroll.go           sockets that come from elsewhere
//	conn.go             Conn, its lazily kept parts, its flags
//	remoteaddr.go       the peer's address, and the fields of gnet that are cleared
//	proxy.go            the client's address behind trusted proxies
//	sockopt.go          options of sockets; unsent*.go is the bound of unsent bytes
//	handshake.go        the upgrade request, its decision and its answer
//	timer.go            deadlines, MessageTimeout, WriteTimeout
//	timerwheel.go       the wheel, and walks through all connections
//	heartbeat.go        pings and silence; progress_*.go is the progress of a peer
//	roundtrip.go        the time from a ping to its pong
//	arrivals.go         the times at which connections came
//	retire.go           the retirement of a connection: notice, time to move, close
//	lifetime.go         the longest life of connections
//	close.go            the close of a connection: its states, and its steps from the causes to detach
//	halfclosed.go       connections whose peer has sent its FIN
//
// Inbound:
//
//	read.go             from received bytes to messages
//	pause.go            backpressure on the peer; HoldInLoop
//	readiness*.go       the events that the loop's epoll waits for
//	wait*.go            the wait of a loop for events, in place of gnet's
//	inflate.go          compressed messages, in steps
//
// Outbound:
//
//	frame.go            Frame, its lane and policy
//	bounds.go           the bounds of a queue
//	send.go             Send, and the wait for space in a queue
//	reply.go            answers: SendReply, SendAnswer, the batch of a read
//	queue.go            the queue of a connection; fifo.go is one lane of it
//	write.go            queueing frames, flushing queues, full sockets
//	write_*.go          the system calls
//	batch_*.go          writing to many connections in one system call
//	uring_*.go          the rings of io_uring below it
//	writable_*.go       the wait for full sockets
//	slow.go             policies of a full queue, slow and blocked connections
//	budget.go           the budgets of memory, and free queues
//	deflate.go          compressing messages
//
// Networks:
//
//	placement.go        the loop of a placement key, and the move to it
//	driver.go           the loop and the sockets below a shard
//	gnetloop.go         the driver on gnet
//	transport.go        the bytes between socket and frames: the interface, and plain connections
//	tls.go              the transport of TLS; tls_hello.go begins it, then tls_handshake.go and its
//	                    tls_workers.go, then tls_io.go
//	simnet.go           the simulated network; simloop.go is its driver
package engine
