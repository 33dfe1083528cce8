package conformance_test

type handshakeCase struct{ id string }

func handshakes() []handshakeCase { return nil }
