package presence

const (
	maxDiffs     = 128      // messages
	maxDiffBytes = 64 << 10 // of all messages

	// The size of a list is estimated: its changes are kept while they are the smaller answer.
	listBytes = 512 // of an empty list
	userBytes = 24  // of a user on the list
)

// Diffs is the newest changes of a list, for those who have an older version of it. M is the message
// with one change. The zero value is empty. Not safe for concurrent use.
type Diffs[M any] struct {
	kept  []diff[M] // their versions have no holes
	bytes int
}

type diff[M any] struct {
	version uint64
	message M
	bytes   int
}

// Add keeps the message that makes the list the given version. If the version before came by other
// means, the older messages are of no use any more. users is the number of users on the list.
func (d *Diffs[M]) Add(version uint64, message M, bytes, users int) {
	if last := len(d.kept) - 1; last >= 0 && d.kept[last].version+1 != version {
		*d = Diffs[M]{}
	}
	d.kept = append(d.kept, diff[M]{version, message, bytes})
	d.bytes += bytes
	drop := 0
	for d.bytes > min(maxDiffBytes, listBytes+userBytes*users) || len(d.kept)-drop > maxDiffs {
		d.bytes -= d.kept[drop].bytes
		drop++
	}
	clear(d.kept[:drop]) // the array keeps its beginning until it is full
	d.kept = d.kept[drop:]
}

// Between returns the messages that make version has of the list version now. ok is false if they are
// not all kept, or there is no such way.
func (d *Diffs[M]) Between(has, now uint64) (messages []M, ok bool) {
	missing, last := now-has, len(d.kept)-1
	switch {
	case has == now:
		return nil, true
	case has > now, missing > uint64(len(d.kept)), d.kept[last].version != now:
		return nil, false
	}
	for _, kept := range d.kept[uint64(len(d.kept))-missing:] {
		messages = append(messages, kept.message)
	}
	return messages, true
}
