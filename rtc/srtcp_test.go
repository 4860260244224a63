package rtc

import (
	"errors"
	"testing"
)

// No nonce is used twice: the last index is the end (RFC 3711 §9.2).
func TestControlIndexDoesNotWrap(t *testing.T) {
	p := profiles()[0]
	c, err := newSRTCP(splitKeys(p, make([]byte, p.material()), false))
	if err != nil {
		t.Fatal(err)
	}
	plain := []byte{128, 201, 0, 1, 0, 0, 0, 9}
	c.index = maxControlIndex - 1
	if _, err := c.seal(nil, plain); err != nil {
		t.Fatalf("the last packet: %v", err)
	}
	for range 2 {
		if b, err := c.seal(nil, plain); !errors.Is(err, errUsedUp) || len(b) != 0 {
			t.Errorf("a packet too many: %x, %v", b, err)
		}
	}
}
