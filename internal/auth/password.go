package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// Argon2id with what OWASP's Password Storage Cheat Sheet asks for first: 19 MiB, two passes, one thread. About 25 ms of one core.
const (
	argonMemory  = 19 * 1024 // KiB
	argonPasses  = 2
	argonThreads = 1
	argonSalt    = 16 // bytes
	argonHash    = 32

	// What is computed of a stored hash at most, whoever wrote it.
	mostMemory = 256 * 1024
	mostPasses = 16

	minPassword = 10  // characters
	maxPassword = 256 // bytes

	// mostHashes at a time, and not more than half of the processors: media needs those.
	mostHashes = 2
	// mostWaiting for one of them; who comes then is told to come back.
	mostWaiting = 32
)

// hasher computes a bounded number of hashes at a time.
type hasher struct {
	turns   chan struct{}
	waiting chan struct{}
}

func newHasher() *hasher {
	n := max(1, min(mostHashes, runtime.GOMAXPROCS(0)/2))
	return &hasher{turns: make(chan struct{}, n), waiting: make(chan struct{}, n+mostWaiting)}
}

// do runs fn in its turn.
func (h *hasher) do(ctx context.Context, fn func()) error {
	select {
	case h.waiting <- struct{}{}:
		defer func() { <-h.waiting }()
	default:
		return &TooManyError{After: retryBusy}
	}
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
	case <-ctx.Done():
		return ctx.Err()
	}
	fn()
	return nil
}

// hash makes what is stored of a password, in the PHC string format.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, argonSalt)
	_, _ = rand.Read(salt) // never fails
	var sum []byte
	err := h.do(ctx, func() {
		sum = argon2.IDKey([]byte(password), salt, argonPasses, argonMemory, argonThreads, argonHash)
	})
	if err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonPasses, argonThreads, b64.EncodeToString(salt), b64.EncodeToString(sum)), nil
}

// verify compares a password with what is stored. An account without a hash costs as much and fails.
func (h *hasher) verify(ctx context.Context, password, stored string) (ok bool, err error) {
	if stored == "" {
		stored = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AA"
	}
	p, err := parseHash(stored)
	if err != nil {
		return false, err
	}
	err = h.do(ctx, func() {
		sum := argon2.IDKey([]byte(password), p.salt, p.passes, p.memory, p.threads, uint32(max(len(p.sum), 16)))
		ok = len(p.sum) >= 16 && subtle.ConstantTimeCompare(sum, p.sum) == 1
	})
	return ok && err == nil, err
}

// outdated reports a hash that a log-in should make anew, since others are asked for now.
func outdated(stored string) bool {
	return !strings.HasPrefix(stored, fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$", argon2.Version, argonMemory, argonPasses, argonThreads))
}

type phc struct {
	memory, passes uint32
	threads        uint8
	salt, sum      []byte
}

// errBadHash: what is stored of a password can't be read.
var errBadHash = errors.New("the stored hash of the password can't be read")

func parseHash(stored string) (p phc, err error) {
	part := strings.Split(stored, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, errBadHash
	}
	if _, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.threads); err != nil {
		return p, errBadHash
	}
	if p.memory > mostMemory || p.passes > mostPasses || p.passes == 0 || p.threads == 0 {
		return p, errBadHash
	}
	if p.salt, err = base64.RawStdEncoding.DecodeString(part[4]); err == nil {
		p.sum, err = base64.RawStdEncoding.DecodeString(part[5])
	}
	if err != nil || len(p.sum) > 128 {
		return p, errBadHash
	}
	return p, nil
}

// CheckPassword refuses what is no password for that account. Long ones may be anything.
func CheckPassword(name, password string) error {
	switch {
	case !utf8.ValidString(password) || len(password) > maxPassword:
		return fmt.Errorf("%w: it is at most %d bytes of text", ErrWeakPassword, maxPassword)
	case utf8.RuneCountInString(password) < minPassword:
		return fmt.Errorf("%w: give it %d characters or more; a few words that belong to nothing are good", ErrWeakPassword, minPassword)
	}
	lower := strings.ToLower(password)
	user, _, _ := strings.Cut(strings.ToLower(name), "@")
	if strings.Trim(strings.ReplaceAll(lower, user, ""), "0123456789.!?-_ ") == "" {
		return fmt.Errorf("%w: it is made of the account's name or of digits alone", ErrWeakPassword)
	}
	seen := map[rune]bool{}
	for _, r := range lower {
		seen[r] = true
	}
	if len(seen) < 5 {
		return fmt.Errorf("%w: it has too few different characters", ErrWeakPassword)
	}
	for _, common := range []string{"1234567890", "password", "qwertyuiop", "qwertz", "administrator", "letmein", "iloveyou"} {
		if strings.Trim(strings.ReplaceAll(lower, common, ""), "0123456789.!?-_ ") == "" {
			return fmt.Errorf("%w: everybody guesses this one first", ErrWeakPassword)
		}
	}
	return nil
}
