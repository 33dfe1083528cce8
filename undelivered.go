package ws

// UndeliveredReason is the reason for which messages of an inbox were dropped.
type UndeliveredReason string

// The reasons.
const (
	// UndeliveredExpired says that the messages have reached Inbox.TTL.
	UndeliveredExpired UndeliveredReason = "expired"
	// UndeliveredFull says that Inbox.Size or Inbox.Bytes was exceeded.
	UndeliveredFull UndeliveredReason = "full"
	// UndeliveredBudget says that Config.HistoryBudget was exceeded.
	UndeliveredBudget UndeliveredReason = "budget"
	// UndeliveredDeleted says that DeleteRoom has ended the inbox.
	UndeliveredDeleted UndeliveredReason = "deleted"
)

// Undelivered names messages of a user's inbox that were dropped before all known devices of the
// user had acknowledged them: those with an offset above After and below Next. While no device is
// known, it names each message that is dropped. It is the Data of EventUndelivered. Immutable.
type Undelivered struct {
	User   string
	Epoch  string
	After  uint64
	Next   uint64
	Count  uint64 // of the messages: Next - After - 1
	Reason UndeliveredReason
}

// noteLostLocked notes the messages of an inbox that were dropped since oldest was the oldest one.
func (h *roomHistory) noteLostLocked(oldest, next uint64, reason UndeliveredReason) {
	if h.inbox == nil || h.ended {
		return
	}
	acked, _ := h.inbox.devices.Least()
	after := max(oldest-1, acked)
	if next <= after+1 {
		return
	}
	h.inbox.lost = append(h.inbox.lost, Undelivered{
		h.inbox.id[len(inboxPrefix):], h.epoch, after, next, next - after - 1, reason,
	})
}

// reportLost counts and publishes the messages of an inbox that were lost. It must not be called with a
// roomHistory.mu held.
func (h *roomHistory) reportLost() {
	if h.inbox == nil {
		return
	}
	h.mu.Lock()
	lost := h.inbox.lost
	h.inbox.lost = nil
	h.mu.Unlock()
	for _, u := range lost {
		h.all.undelivered.Add(u.Count)
		h.all.bus.publish(EventUndelivered, nil, u)
	}
}
