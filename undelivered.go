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
	Count  uint64 // of the messages
	Reason UndeliveredReason
}

// unacked counts the messages of an inbox that are kept, and that not all known devices have
// acknowledged. Immutable.
type unacked struct {
	after    uint64 // they follow this offset
	messages int
}

// unackedLocked returns the zero value for a room that is no inbox.
func (h *roomHistory) unackedLocked() unacked {
	if h.inbox == nil {
		return unacked{}
	}
	acked, _ := h.inbox.devices.Least()
	after := max(h.log.Base(), acked)
	return unacked{after, h.log.Count(after)}
}

// noteLostLocked notes the messages of before that were dropped.
func (h *roomHistory) noteLostLocked(before unacked, reason UndeliveredReason) {
	before.messages -= h.unackedLocked().messages
	h.addLostLocked(before, h.log.Base()+1, reason)
}

// addLostLocked notes that the messages of an inbox with an offset below next are lost.
func (h *roomHistory) addLostLocked(lost unacked, next uint64, reason UndeliveredReason) {
	if h.inbox == nil || h.ended || lost.messages == 0 {
		return
	}
	h.inbox.lost = append(h.inbox.lost, Undelivered{
		h.inbox.id[len(inboxPrefix):], h.epoch, lost.after, next, uint64(lost.messages), reason,
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
