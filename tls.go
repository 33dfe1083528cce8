package ws

import "crypto/tls"

// validateTLS refuses a setting that would fail every handshake.
func (c *Config) validateTLS() error {
	t := c.TLSConfig
	switch {
	case t == nil:
		return nil
	case len(t.Certificates) == 0 && t.GetCertificate == nil && t.GetConfigForClient == nil:
		return invalid("TLSConfig", "needs Certificates, GetCertificate or GetConfigForClient")
	}
	return nil
}

// tlsConfig returns the copy of TLSConfig that the listener uses.
func (c *Config) tlsConfig() *tls.Config {
	t := c.TLSConfig.Clone()
	if len(t.NextProtos) == 0 {
		t.NextProtos = []string{"http/1.1"}
	}
	t.DynamicRecordSizingDisabled = true // a batch of messages is one record
	return t
}
