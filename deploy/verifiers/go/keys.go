package akoya

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/yaronf/httpsign"
)

// JWK is a public JSON Web Key (RFC 7517).
type JWK struct{ Kty, Crv, Kid, X, Y string }

// Key returns the verification key of a JWK.
func (j JWK) Key() (Key, error) {
	x, errX := base64.RawURLEncoding.DecodeString(j.X)
	y, errY := base64.RawURLEncoding.DecodeString(j.Y)
	switch {
	case errX != nil || errY != nil:
		return Key{}, errors.New("not base64url")
	case j.Kty == "OKP" && j.Crv == "Ed25519" && len(x) == ed25519.PublicKeySize:
		return Ed25519(x), nil
	case j.Kty == "EC" && j.Crv == "P-256" && len(x) == 32 && len(y) == 32:
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
		if err != nil {
			return Key{}, err
		}
		return P256(*public), nil
	}
	return Key{}, errors.New("neither Ed25519 nor P-256")
}

// Ed25519 returns a key for ed25519.
func Ed25519(public ed25519.PublicKey) Key {
	return Key{algorithm: "ed25519", verifier: func(c *httpsign.VerifyConfig, f httpsign.Fields) (*httpsign.Verifier, error) {
		return httpsign.NewEd25519Verifier(public, c, f)
	}}
}

// P256 returns a key for ecdsa-p256-sha256.
func P256(public ecdsa.PublicKey) Key {
	return Key{algorithm: "ecdsa-p256-sha256", verifier: func(c *httpsign.VerifyConfig, f httpsign.Fields) (*httpsign.Verifier, error) {
		return httpsign.NewP256Verifier(public, c, f)
	}}
}

// Secret returns a key for hmac-sha256. The secret is the text configured in the gateway. Surrounding white space is
// ignored.
func Secret(secret string) (Key, error) {
	if strings.HasPrefix(secret, "\ufeff") {
		return Key{}, errors.New("the shared secret begins with a byte order mark")
	}
	key := []byte(strings.TrimSpace(secret))
	if len(key) < 32 || bytes.HasPrefix(key, []byte("-----BEGIN")) {
		return Key{}, errors.New("no shared secret of 32 bytes")
	}
	// The library requires at least 64 bytes. HMAC pads a shorter key with zeros (RFC 2104), so this is the same key.
	if missing := 64 - len(key); missing > 0 {
		key = append(key, make([]byte, missing)...)
	}
	return Key{algorithm: "hmac-sha256", verifier: func(c *httpsign.VerifyConfig, f httpsign.Fields) (*httpsign.Verifier, error) {
		return httpsign.NewHMACSHA256Verifier(key, c, f)
	}}, nil
}

// JWKS is a JWK Set fetched from a URL and cached for five minutes. Only one fetch runs at a time, at most every ten
// seconds. If a fetch fails, the old set stays in use. A signature that the cached key does not verify causes a fetch
// too, because a key can be replaced under the same ID.
type JWKS struct {
	url       string
	client    *http.Client
	mutex     sync.Mutex
	keys      map[string]Key
	fetchedAt time.Time
	triedAt   time.Time
}

// NewJWKS returns the key set of a URL, which is the gateway's /akoya/jwks.json.
func NewJWKS(url string) *JWKS {
	client := &http.Client{
		Timeout:       5 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &JWKS{url: url, client: client}
}

// Key returns the key with this ID.
func (s *JWKS) Key(id string) (Key, error) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if _, known := s.keys[id]; !known || time.Since(s.fetchedAt) > 5*time.Minute {
		s.refresh()
	}
	key, known := s.keys[id]
	if !known {
		return Key{}, fmt.Errorf("no key %q", id)
	}
	fetchedAt := s.fetchedAt
	key.renewed = func() (Key, bool) {
		s.mutex.Lock()
		defer s.mutex.Unlock()
		s.refresh()
		renewed, known := s.keys[id]
		return renewed, known && !s.fetchedAt.Equal(fetchedAt) && renewed.algorithm == key.algorithm
	}
	return key, nil
}

// refresh fetches the set, unless that was tried in the last ten seconds. The caller holds the mutex.
func (s *JWKS) refresh() {
	if time.Since(s.triedAt) <= 10*time.Second {
		return
	}
	s.triedAt = time.Now()
	if keys, err := s.fetch(); err == nil {
		s.keys, s.fetchedAt = keys, time.Now()
	}
}

func (s *JWKS) fetch() (map[string]Key, error) {
	response, err := s.client.Get(s.url)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", s.url, response.Status)
	}
	var set struct{ Keys []JWK }
	if err := json.NewDecoder(io.LimitReader(response.Body, 1<<18)).Decode(&set); err != nil {
		return nil, err
	}
	keys := map[string]Key{}
	for _, jwk := range set.Keys {
		if key, err := jwk.Key(); err == nil {
			keys[jwk.Kid] = key
		}
	}
	return keys, nil
}
