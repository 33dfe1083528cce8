package ws

import (
	"bytes"
	"encoding/json"
	"io"
	"sync"
)

// maxPooledJSON bounds the values whose encoders and decoders return to a pool, in bytes.
const maxPooledJSON = 32 << 10

// jsonEncoder encodes one value after the other into the same memory. Not safe for concurrent
// use.
type jsonEncoder struct {
	encoder *json.Encoder // into encoded
	encoded bytes.Buffer
}

var jsonEncoders = sync.Pool{New: func() any {
	e := new(jsonEncoder)
	e.encoder = json.NewEncoder(&e.encoded)
	return e
}}

// release gives e, which may be nil, back to the pool.
func (e *jsonEncoder) release() {
	if e == nil || e.encoded.Cap() > maxPooledJSON {
		return
	}
	e.encoded.Reset()
	jsonEncoders.Put(e)
}

// encodeJSON returns the JSON of v. It is borrowed until the caller releases e.
func (c *Config) encodeJSON(v any) (data []byte, e *jsonEncoder, err error) {
	if c.JSONMarshal != nil {
		data, err = c.JSONMarshal(v)
		return data, nil, err
	}
	e = jsonEncoders.Get().(*jsonEncoder)
	if err := e.encoder.Encode(v); err != nil {
		return nil, e, err
	}
	return bytes.TrimSuffix(e.encoded.Bytes(), []byte{'\n'}), e, nil
}

// jsonDecoder decodes one value after the other with the same memory. Not safe for concurrent
// use.
type jsonDecoder struct {
	decoder *json.Decoder // of unread
	unread  []byte        // borrowed
}

var jsonDecoders = sync.Pool{New: func() any {
	d := new(jsonDecoder)
	d.decoder = json.NewDecoder(d)
	return d
}}

// Read implements io.Reader for the decoder.
func (d *jsonDecoder) Read(p []byte) (int, error) {
	if len(d.unread) == 0 {
		return 0, io.EOF
	}
	n := copy(p, d.unread)
	d.unread = d.unread[n:]
	return n, nil
}

// unmarshalJSON is json.Unmarshal, whose decoder and its memory it takes from a pool. data is
// borrowed.
func unmarshalJSON(data []byte, v any) error {
	value := bytes.TrimRight(data, " \t\r\n")
	if len(value) == 0 || len(value) > maxPooledJSON {
		return json.Unmarshal(data, v)
	}
	d := jsonDecoders.Get().(*jsonDecoder)
	d.unread = value
	end := d.decoder.InputOffset() + int64(len(value))
	err := d.decoder.Decode(v)
	if d.decoder.InputOffset() != end { // data is not one value, so the decoder is of no more use
		return json.Unmarshal(data, v)
	}
	jsonDecoders.Put(d)
	return err
}
