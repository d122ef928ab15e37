package akoya

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"testing"
	"time"
)

type vectors struct {
	Keys []struct {
		Kid, Secret string
		PublicJWK   JWK `json:"public_jwk"`
	}
	Cases, Attacks []vector
}

type vector struct {
	Name    string
	Now     int64
	Request struct {
		Method, Authority, Path, Query string
		Headers                        [][2]string
	}
	Says struct {
		Owner, Connector, Environment string
		IDToken                       string `json:"id_token"`
		Expires                       int64
		Scope                         []string
		Connections                   []Connection
		Provider, Grant, Consent      string
		InteractionType               string            `json:"interaction_type"`
		LastAccess                    string            `json:"last_access"`
		IDTokens                      map[string]string `json:"id_tokens"`
	}
}

func (v vector) verify(keys func(string) (Key, error)) (Verified, error) {
	headers := http.Header{}
	for _, line := range v.Request.Headers {
		headers.Add(line[0], line[1]) // As net/http does: canonical names, values in order.
	}
	r := v.Request
	return Verify(Request{r.Method, r.Authority, r.Path, r.Query, headers}, keys, time.Unix(v.Now, 0))
}

func load(t *testing.T) (vectors, func(string) (Key, error)) {
	t.Helper()
	file := os.Getenv("AKOYA_VECTORS")
	if file == "" {
		file = "../../../tests/vectors/messages.json"
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all vectors
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	keys := map[string]Key{}
	for _, one := range all.Keys {
		key, err := one.PublicJWK.Key()
		if one.Secret != "" {
			key, err = Secret(one.Secret)
		}
		if err != nil {
			t.Fatal(err)
		}
		keys[one.Kid] = key
	}
	return all, func(id string) (Key, error) {
		if key, known := keys[id]; known {
			return key, nil
		}
		return Key{}, errors.New("unknown key")
	}
}

func TestVectors(t *testing.T) {
	all, keys := load(t)
	if len(all.Cases) == 0 || len(all.Attacks) == 0 {
		t.Fatal("no vectors")
	}
	for _, one := range all.Cases {
		t.Run("verifies: "+one.Name, func(t *testing.T) {
			verified, err := one.verify(keys)
			if err != nil {
				t.Fatal(err)
			}
			expected := Verified{
				Owner: one.Says.Owner, Connector: one.Says.Connector, IDToken: one.Says.IDToken, Scope: verified.Scope,
				Environment: one.Says.Environment, Expires: one.Says.Expires, Connections: verified.Connections, Nonce: verified.Nonce,
				Provider: one.Says.Provider, Grant: one.Says.Grant, Consent: one.Says.Consent,
				InteractionType: one.Says.InteractionType, LastAccess: one.Says.LastAccess, IDTokens: one.Says.IDTokens,
			}
			if !reflect.DeepEqual(verified, expected) {
				t.Fatalf("got %+v, expected %+v", verified, expected)
			}
			if len(verified.Scope)+len(one.Says.Scope) > 0 && !reflect.DeepEqual(verified.Scope, one.Says.Scope) {
				t.Fatalf("scope %v", verified.Scope)
			}
			if len(verified.Connections)+len(one.Says.Connections) > 0 && !reflect.DeepEqual(verified.Connections, one.Says.Connections) {
				t.Fatalf("connections %v", verified.Connections)
			}
		})
	}
	for _, one := range all.Attacks {
		t.Run("refuses: "+one.Name, func(t *testing.T) {
			if verified, err := one.verify(keys); err == nil {
				t.Fatalf("accepted as %+v", verified)
			}
		})
	}
}

// A rewritten URL is refused: the app would serve another path than the signed one. The signature itself is valid.
func TestMiddlewareRefusesRewrittenURL(t *testing.T) {
	all, keys := load(t)
	signed := all.Cases[0]
	target := signed.Request.Path
	if signed.Request.Query != "" {
		target += "?" + signed.Request.Query
	}
	rewrites := map[string]struct {
		rewrite func(*http.Request)
		status  int
	}{
		"none":  {func(*http.Request) {}, http.StatusOK},
		"path":  {func(r *http.Request) { r.URL.Path = "/admin" }, http.StatusUnauthorized},
		"query": {func(r *http.Request) { r.URL.RawQuery = "owner=other" }, http.StatusUnauthorized},
	}
	for name, one := range rewrites {
		request := httptest.NewRequest(signed.Request.Method, target, nil)
		request.Host = signed.Request.Authority
		for _, line := range signed.Request.Headers {
			request.Header.Add(line[0], line[1])
		}
		one.rewrite(request)
		response := httptest.NewRecorder()
		middleware(keys, func(w http.ResponseWriter, _ *http.Request, _ Verified) {
			w.WriteHeader(http.StatusOK)
		}, func() time.Time { return time.Unix(signed.Now, 0) }).ServeHTTP(response, request)
		if response.Code != one.status {
			t.Errorf("rewritten %s: status %d instead of %d", name, response.Code, one.status)
		}
	}
}
