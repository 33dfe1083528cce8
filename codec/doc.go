// Package codec is RFC 6455 as functions over bytes: the opening handshake, frames, masks,
// UTF-8, message assembly and the close payload. It does no I/O and starts no goroutine;
// bytes go in, and frames, messages or errors come out.
//
// A server reads with [ParseRequest], [CheckUpgrade] and then one [Decoder] for each
// connection. It writes with [AppendAccept] or [AppendRefusal], and then with [AppendFrame],
// [NewFrame] and [AppendClose].
//
// Every []byte here is borrowed, owned or shared. Borrowed bytes are valid until the call
// returns (or as long as the comment says); copy them to keep them. Owned bytes are handed
// over. Shared bytes are never changed again and may be kept by any number of readers.
package codec
