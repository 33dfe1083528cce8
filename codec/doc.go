// Package codec implements RFC 6455 and RFC 7692 as functions over bytes: the opening handshake,
// frames, masks, UTF-8, message assembly, compression and the close payload. It does no I/O and
// starts no goroutine. Bytes go in; frames, messages or errors come out.
//
// A server reads with [ParseRequest], [CheckUpgrade] and then one [Decoder] for each
// connection. It writes with [AppendAccept] or [AppendRefusal], and then with [AppendFrame],
// [NewFrame] and [AppendClose].
//
// A client writes [AppendOffer] and [AppendMaskedFrame], and reads with [CheckAccept] and
// [Decoder.NextUnmasked].
//
// Behind a proxy, [ParseProxyHeader] and [TrustedProxies] find the address of the client.
//
// Every []byte is borrowed, owned or shared. Borrowed bytes are valid until the call returns
// (or as long as the comment says); copy them to keep them. Owned bytes are handed over. Shared
// bytes are never changed again, and any number of readers may keep them.
//
// The package is a part of ws with no promise of compatibility. Programs use package ws.
package codec
