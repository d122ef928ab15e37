// Package akoya verifies the signature of Akoya Gateway (RFC 9421) with the library github.com/yaronf/httpsign.
//
//	keys := akoya.NewJWKS("https://app.example.com/akoya/jwks.json")
//	verified, err := akoya.Verify(akoya.FromHTTP(r), keys.Key, time.Now())
//	verified.Owner, verified.Connector, verified.IDToken
package akoya

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
	"github.com/yaronf/httpsign"
)

const (
	label = "akoya"
	tag   = "akoya-gateway"
	// Skew is the clock difference to tolerate.
	Skew = 5 * time.Second
)

// Request is a request as received. Path and Query are raw, as in the request line. Query has no "?".
type Request struct {
	Method, Authority, Path, Query string
	Headers                        http.Header
}

// Verified is what the gateway signed for a request. Without a grant, Connector and IDToken are empty and Expires is 0.
// Provider is Akoya's ID of the bank, and Connector its name in gateway.yaml. Grant is the ID of one login at one bank.
// InteractionType and LastAccess are the values of Akoya's headers x-akoya-interaction-type and x-akoya-last-access.
// IDTokens has a token for each connector, if the access rule has pass_tokens: all.
type Verified struct {
	Owner, Connector, IDToken, Environment string
	Expires                                int64
	Scope                                  []string
	Connections                            []Connection
	Nonce                                  string
	Provider, Grant, Consent               string
	InteractionType, LastAccess            string
	IDTokens                               map[string]string
}

// Connection is one bank login of the owner.
type Connection struct {
	Connector, State string
	Expires          int64
	// ID is the grant ID, stable for this login at this bank.
	ID string
}

// Key verifies signatures with its own algorithm, which a message cannot change. Create one with Ed25519, P256 or
// Secret.
type Key struct {
	algorithm string
	verifier  func(*httpsign.VerifyConfig, httpsign.Fields) (*httpsign.Verifier, error)
	// renewed returns the key that has replaced this one under the same ID, if any. It is nil without a remote key set.
	renewed func() (renewed Key, replaced bool)
}

// FromHTTP returns the request as net/http received it, regardless of handlers that rewrite r.URL.
func FromHTTP(r *http.Request) Request {
	path, query, _ := strings.Cut(r.RequestURI, "?")
	return Request{Method: r.Method, Authority: r.Host, Path: path, Query: query, Headers: r.Header}
}

// Moved reports whether r.URL has been rewritten, so that the app would serve another path than the signed one.
// http.StripPrefix rewrites it too, so verify before http.StripPrefix.
func Moved(r *http.Request) bool {
	received, err := url.ParseRequestURI(r.RequestURI)
	return err != nil || received.Path != r.URL.Path || received.RawQuery != r.URL.RawQuery
}

// Middleware calls next for verified requests and responds with 401 to all others.
func Middleware(keys func(id string) (Key, error), next func(http.ResponseWriter, *http.Request, Verified)) http.Handler {
	return middleware(keys, next, time.Now)
}

func middleware(
	keys func(id string) (Key, error), next func(http.ResponseWriter, *http.Request, Verified), now func() time.Time,
) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verified, err := Verify(FromHTTP(r), keys, now())
		if err != nil || Moved(r) {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		next(w, r, verified)
	})
}

// Verify returns what the gateway signed, or an error if the request cannot be verified.
func Verify(r Request, keys func(id string) (Key, error), now time.Time) (Verified, error) {
	ours, err := ourHeaders(r.Headers)
	if err != nil {
		return Verified{}, err
	}
	covered, err := coveredBy(r.Headers)
	if err != nil {
		return Verified{}, err
	}
	keyID, err := judgeParameters(covered.Params, now)
	if err != nil {
		return Verified{}, err
	}
	key, err := keys(keyID)
	if err != nil {
		return Verified{}, err
	}
	if alg, there := covered.Params.Get("alg"); there && alg != key.algorithm {
		return Verified{}, fmt.Errorf("key %q is for %s and nothing else", keyID, key.algorithm)
	}
	required := []string{"@method", "@authority", "@path", "@query"}
	for name := range ours {
		required = append(required, name)
	}
	// judgeParameters has checked the times, against the clock that the caller passes.
	config := httpsign.NewVerifyConfig().SetVerifyCreated(false).SetRejectExpired(false).SetAllowedTags([]string{tag})
	message, err := r.message()
	if err != nil {
		return Verified{}, err
	}
	verifyWith := func(key Key) (*httpsign.MessageDetails, error) {
		verifier, err := key.verifier(config, httpsign.Headers(required...))
		if err != nil {
			return nil, err
		}
		return message.Verify(label, *verifier)
	}
	details, err := verifyWith(key)
	if err != nil && key.renewed != nil {
		if renewed, replaced := key.renewed(); replaced {
			details, err = verifyWith(renewed)
		}
	}
	if err != nil {
		return Verified{}, err
	}
	return newVerified(ours, details.Nonce)
}

func (r Request) message() (*httpsign.Message, error) {
	path := r.Path
	if path == "" {
		path = "/"
	}
	target, err := url.ParseRequestURI(path + "?" + r.Query)
	if err != nil || target.EscapedPath() != path {
		return nil, errors.New("a malformed target")
	}
	authority := strings.TrimSuffix(strings.ToLower(r.Authority), ":80")
	return httpsign.NewMessage(httpsign.NewMessageConfig().
		WithMethod(r.Method).WithURL(target).WithAuthority(authority).WithScheme("http").WithHeaders(r.Headers))
}

// special matches the characters of a lower-case header name that a server could replace with "-".
var special = regexp.MustCompile("[^a-z0-9]")

// ourHeaders returns the gateway headers by lower-case name. It fails if one occurs twice, or if a header has a name
// that a server could normalize to that of a gateway header.
func ourHeaders(headers http.Header) (map[string]string, error) {
	ours := map[string]string{}
	for name, values := range headers {
		lower := strings.ToLower(name)
		folded := special.ReplaceAllString(lower, "-")
		reserved := strings.HasPrefix(folded, "akoya-") || folded == "signature" || folded == "signature-input"
		if reserved && folded != lower {
			return nil, fmt.Errorf("header %q could pass for %q", name, folded)
		}
		if !strings.HasPrefix(lower, "akoya-") {
			continue
		}
		if _, twice := ours[lower]; twice || len(values) != 1 {
			return nil, fmt.Errorf("header %q is there more than once", name)
		}
		// The library would remove any white space around the value, and the app would get it.
		value := strings.Trim(values[0], " \t")
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, fmt.Errorf("header %q has a character that cannot be signed", name)
		}
		ours[lower] = value
	}
	return ours, nil
}

// quoted matches a string of a structured field, which may contain commas.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// isLabelRepeated reports whether a field has several members of the gateway. The libraries take the last one.
func isLabelRepeated(values []string) bool {
	found := 0
	for _, member := range strings.Split(quoted.ReplaceAllString(strings.Join(values, ","), ""), ",") {
		rest, isOurs := strings.CutPrefix(strings.TrimLeft(member, " \t"), label)
		if isOurs && (rest == "" || strings.ContainsAny(rest[:1], "=; \t")) {
			found++
		}
	}
	return found > 1
}

var octets = regexp.MustCompile(`:([^:]*):`)

// isCanonicalBase64 reports whether all byte sequences are in canonical form. Other forms would allow many spellings of
// one signature.
func isCanonicalBase64(values []string) bool {
	for _, found := range octets.FindAllStringSubmatch(strings.Join(values, ","), -1) {
		decoded, err := base64.StdEncoding.DecodeString(found[1])
		if err != nil || base64.StdEncoding.EncodeToString(decoded) != found[1] {
			return false
		}
	}
	return true
}

// coveredBy returns the covered components. It fails if one is not a plain name or occurs twice, or if there are two
// signatures of the gateway.
func coveredBy(headers http.Header) (httpsfv.InnerList, error) {
	if isLabelRepeated(headers.Values("Signature-Input")) || isLabelRepeated(headers.Values("Signature")) {
		return httpsfv.InnerList{}, errors.New("two signatures of the gateway")
	}
	if !isCanonicalBase64(headers.Values("Signature")) {
		return httpsfv.InnerList{}, errors.New("Signature is not canonical base64")
	}
	inputs, err := httpsfv.UnmarshalDictionary(headers.Values("Signature-Input"))
	if err != nil {
		return httpsfv.InnerList{}, err
	}
	member, _ := inputs.Get(label)
	covered, isList := member.(httpsfv.InnerList)
	if !isList {
		return httpsfv.InnerList{}, errors.New("no signature of the gateway")
	}
	seen := map[string]bool{}
	for _, item := range covered.Items {
		name, isString := item.Value.(string)
		if !isString || len(item.Params.Names()) > 0 || seen[name] {
			return httpsfv.InnerList{}, errors.New("a covered component is not a plain name, or covered twice")
		}
		seen[name] = true
	}
	return covered, nil
}

func judgeParameters(parameters *httpsfv.Params, now time.Time) (keyID string, err error) {
	value := func(name string) any { found, _ := parameters.Get(name); return found }
	created, hasCreated := value("created").(int64)
	expires, hasExpires := value("expires").(int64)
	keyID, hasKeyID := value("keyid").(string)
	if !hasCreated || !hasExpires || !hasKeyID || expires < created {
		return "", errors.New("created, expires or keyid is missing or malformed")
	}
	if time.Unix(created, 0).After(now.Add(Skew)) {
		return "", errors.New("signed in the future")
	}
	if !now.Before(time.Unix(expires, 0).Add(Skew)) {
		return "", errors.New("expired")
	}
	return keyID, nil
}

func newVerified(ours map[string]string, nonce *string) (Verified, error) {
	owner, err := url.PathUnescape(ours["akoya-owner"])
	if err != nil {
		return Verified{}, err
	}
	connections, err := connectionsIn(ours["akoya-connections"])
	if err != nil {
		return Verified{}, err
	}
	idTokens, err := idTokensIn(ours["akoya-id-tokens"])
	if err != nil {
		return Verified{}, err
	}
	expires, _ := strconv.ParseInt(ours["akoya-expires"], 10, 64)
	verified := Verified{
		Owner: owner, Connector: ours["akoya-connector"], IDToken: ours["akoya-id-token"], Expires: expires,
		Environment: ours["akoya-environment"], Scope: strings.Fields(ours["akoya-scope"]), Connections: connections,
		Provider: ours["akoya-provider"], Grant: ours["akoya-grant"], Consent: ours["akoya-consent"],
		InteractionType: ours["akoya-interaction-type"], LastAccess: ours["akoya-last-access"], IDTokens: idTokens,
	}
	if nonce != nil {
		verified.Nonce = *nonce
	}
	return verified, nil
}

func connectionsIn(value string) ([]Connection, error) {
	members, err := httpsfv.UnmarshalDictionary([]string{value})
	if err != nil {
		return nil, err
	}
	var found []Connection
	for _, connector := range members.Names() {
		member, _ := members.Get(connector)
		logins := []httpsfv.Item{}
		switch one := member.(type) {
		case httpsfv.InnerList:
			logins = one.Items
		case httpsfv.Item:
			logins = append(logins, one)
		}
		for _, login := range logins {
			expires, _ := login.Params.Get("expires")
			ends, _ := expires.(int64)
			grant, _ := login.Params.Get("id")
			id, _ := grant.(string)
			found = append(found, Connection{connector, fmt.Sprint(login.Value), ends, id})
		}
	}
	return found, nil
}

func idTokensIn(value string) (map[string]string, error) {
	members, err := httpsfv.UnmarshalDictionary([]string{value})
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, connector := range members.Names() {
		member, _ := members.Get(connector)
		if item, isItem := member.(httpsfv.Item); isItem {
			found[connector] = fmt.Sprint(item.Value)
		}
	}
	return found, nil
}
