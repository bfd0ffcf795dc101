// SPDX-License-Identifier: Apache-2.0

// Secrets of tapes, and what differs each time.

package registrytest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"html"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/berth-oci/registry/internal/redact"
)

const (
	// redacted replaces secrets, and uploadID the IDs of uploads.
	redacted = "redacted"
	uploadID = "UPLOAD"
	// minSecret is the size of the shortest secret that is looked for everywhere,
	// and minOption that of one of TapeOptions.Secrets.
	minSecret = 8
	minOption = 4
)

var (
	// secretHeader is found in the names of headers with secrets, secretName in
	// those of parameters.
	secretHeader = regexp.MustCompile(`(?i)token|secret|passw|authorization|cookie|credential|signature|api-?key`)
	secretName   = regexp.MustCompile(`(?i)token|secret|passw|auth|cookie|cred|sign|^sig$|hmac|policy|key|_state|verify|^code$`)
	// jwt is a token in text, or the beginning of one.
	jwt = regexp.MustCompile(`eyJ[\w-]{8,}(\.[\w-]*){0,4}`)
	// queryURL is an absolute URL with a query, in text.
	queryURL = regexp.MustCompile(`https?://[^\s"'<>\\?]+\?[^\s"'<>\\]+`)
	// escape is a byte in a URL.
	escape = regexp.MustCompile(`%[0-9A-F]{2}`)
	// scopeParameter is the scope of a challenge.
	scopeParameter = regexp.MustCompile(`(?i)\bscope="[^"]*"`)
	// uploadPath is the path of an upload with its ID.
	uploadPath = regexp.MustCompile(`(/v2/.+/blobs/uploads?/)([^/?]+)`)
)

// masker replaces what a tape must not contain. It is safe for concurrent use.
type masker struct {
	replays bool // the ports of loopback hosts are those on tape

	mu       sync.Mutex
	replace  map[string]string // replacements of texts
	secrets  map[string]string // texts that must not occur in content, with what they are
	ports    map[string]string // ports of loopback hosts on tape
	replacer *strings.Replacer // of replace; nil if it has changed
}

func newMasker() *masker {
	return &masker{replace: make(map[string]string), secrets: make(map[string]string), ports: make(map[string]string)}
}

// add adds a secret. kind says what it is.
func (m *masker) add(secret, kind string) {
	if secret == "" || secret == redacted {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.secrets[secret]; known {
		return
	}
	quoted, _ := json.Marshal(secret)
	escaped := string(quoted[1 : len(quoted)-1])
	forms := []string{
		secret, url.QueryEscape(secret), url.PathEscape(secret), (&url.URL{Path: secret}).EscapedPath(),
		html.EscapeString(secret), escaped, strings.ReplaceAll(escaped, "/", `\/`),
	}
	for _, form := range forms[1:4] {
		forms = append(forms, lowerEscapes(form))
	}
	if len(secret) >= minSecret {
		forms = append(forms, base64.StdEncoding.EncodeToString([]byte(secret)), base64.RawURLEncoding.EncodeToString([]byte(secret)))
	}
	for _, form := range forms {
		m.replace[form] = redacted
		m.secrets[form] = kind
	}
	m.replacer = nil
}

// lowerEscapes returns an escaped part of a URL with escapes in lower case.
func lowerEscapes(s string) string {
	return escape.ReplaceAllStringFunc(s, strings.ToLower)
}

// protocolWords occur in messages with another meaning, as in grant_type=password.
// Nobody's password is meant to be secret if it is one of them.
var protocolWords = []string{
	"access_token", "anonymous", "manifests", "password", "redacted", "refresh_token", "registry", "repository", "username",
}

// found adds a secret that was seen in a message, if it can be looked for.
func (m *masker) found(secret, kind string) {
	if len(secret) >= minSecret && digest.Digest(secret).Validate() != nil && !slices.Contains(protocolWords, secret) {
		m.add(secret, kind)
	}
}

// upload adds the ID of an upload.
func (m *masker) upload(id string) {
	if len(id) < minSecret {
		return // it is replaced only in paths
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.replace[id]; !ok {
		m.replace[id] = uploadID
		m.replace[url.PathEscape(id)] = uploadID
		m.replacer = nil
	}
}

// host returns a host as it is on tape: the ports of loopback are numbered.
func (m *masker) host(host string) string {
	if m.replays || !isLoopback(host) {
		return host
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if known, ok := m.ports[host]; ok {
		return known
	}
	i := strings.LastIndexByte(host, ':')
	masked := host[:i+1] + strconv.Itoa(len(m.ports)+1)
	m.ports[host] = masked
	if host != masked {
		m.replace[host] = masked
		m.replace[url.QueryEscape(host)] = url.QueryEscape(masked)
		m.replacer = nil
	}
	return masked
}

// text replaces everything known in s.
func (m *masker) text(s string) string {
	m.mu.Lock()
	if m.replacer == nil {
		// The longest first: a port may be the beginning of another.
		olds := slices.SortedFunc(maps.Keys(m.replace), func(a, b string) int {
			return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
		})
		var pairs []string
		for _, old := range olds {
			pairs = append(pairs, old, m.replace[old])
		}
		m.replacer = strings.NewReplacer(pairs...)
	}
	r := m.replacer
	m.mu.Unlock()
	return jwt.ReplaceAllString(r.Replace(s), redacted)
}

// url returns a URL as it is on tape. It may be relative.
func (m *masker) url(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return redacted
	}
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	if u.Host != "" {
		u.Host = m.host(u.Host)
	}
	masked := uploadPath.ReplaceAllString(u.EscapedPath(), "${1}"+uploadID)
	u.Path, u.RawPath, u.RawQuery = "", "", m.form(u.RawQuery)
	query := ""
	if u.RawQuery != "" {
		query = "?" + u.RawQuery
		u.RawQuery = ""
	}
	return m.text(u.String() + masked + query)
}

// form returns a query or form as it is on tape, sorted.
func (m *masker) form(s string) string {
	if s == "" {
		return ""
	}
	values, err := url.ParseQuery(s)
	if err != nil {
		return redacted
	}
	masked := make(url.Values)
	for name, all := range values {
		for i, value := range all {
			switch {
			case !slices.Contains(redact.PublicParameters, name):
				value = redacted
			case name == "scope":
				value = sortScopes(value)
			}
			all[i] = m.text(value)
		}
		slices.Sort(all)
		masked[m.text(name)] = all
	}
	// Digests and scopes are easier to read as they are.
	return strings.NewReplacer("%3A", ":", "%2F", "/", "%2C", ",").Replace(masked.Encode())
}

// sortScopes sorts the actions of scopes, which some registries send in random order, and
// clients send back.
func sortScopes(s string) string {
	scopes := strings.Split(s, " ")
	for i, scope := range scopes {
		if j := strings.LastIndexByte(scope, ':'); j >= 0 {
			actions := strings.Split(scope[j+1:], ",")
			slices.Sort(actions)
			scopes[i] = scope[:j+1] + strings.Join(actions, ",")
		}
	}
	return strings.Join(scopes, " ")
}

// sortQuotedScopes sorts the scope of a challenge.
func sortQuotedScopes(s string) string {
	name, value, _ := strings.Cut(strings.TrimSuffix(s, `"`), `"`)
	return name + `"` + sortScopes(value) + `"`
}

// learnForm adds the secrets of a query or form.
func (m *masker) learnForm(s string) {
	values, _ := url.ParseQuery(s) // those that are well-formed
	for name, all := range values {
		if !slices.Contains(redact.PublicParameters, name) && secretName.MatchString(name) {
			for _, value := range all {
				m.found(value, "the value of the parameter "+name)
			}
		}
	}
}

func (m *masker) learnURL(u *url.URL) {
	m.learnForm(u.RawQuery)
	if u.User != nil {
		password, _ := u.User.Password()
		m.found(password, "a password")
	}
}

// learnHeader adds the secrets of a header.
func (m *masker) learnHeader(header http.Header) {
	for name, values := range header {
		for _, value := range values {
			switch name {
			case "Authorization", "Proxy-Authorization":
				scheme, credentials, _ := strings.Cut(value, " ")
				if credentials == "" {
					credentials = scheme
				}
				m.found(strings.TrimSpace(credentials), "a credential")
				if data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(credentials)); err == nil && strings.EqualFold(scheme, "Basic") {
					_, password, _ := strings.Cut(string(data), ":")
					m.found(password, "a password")
				}
			case "Cookie", "Set-Cookie":
				for i, part := range strings.Split(value, ";") {
					if _, v, ok := strings.Cut(part, "="); ok && (i == 0 || name == "Cookie") && len(v) >= 2*minSecret {
						m.found(v, "a cookie")
					}
				}
			case "Www-Authenticate", "Proxy-Authenticate":
			default:
				if secretHeader.MatchString(name) && !slices.Contains(responseHeaders, name) {
					m.found(value, "the header "+name)
				}
			}
		}
	}
	editURLs(header.Clone(), func(s string) string {
		if u, err := url.Parse(s); err == nil {
			m.learnURL(u)
		}
		return s
	})
}

// header returns a header's lines as they are on tape: those with the given names.
func (m *masker) header(header http.Header, names []string) (lines []string) {
	header = header.Clone()
	editURLs(header, m.url)
	for _, name := range names {
		values := header[name]
		switch {
		case len(values) == 0:
			continue
		case name == "Authorization":
			values = []string{redact.AuthScheme(values[0])}
		case name == "Accept":
			// The order and the form of the list say little.
			var types []string
			for _, t := range strings.Split(strings.Join(values, ","), ",") {
				if t = strings.TrimSpace(t); t != "" {
					types = append(types, t)
				}
			}
			slices.Sort(types)
			values = []string{strings.Join(slices.Compact(types), ", ")}
		case name == "Retry-After" && strings.Trim(values[0], "0123456789") != "":
			continue // a time
		}
		for _, value := range values {
			if name == "Www-Authenticate" {
				value = scopeParameter.ReplaceAllStringFunc(value, sortQuotedScopes)
			}
			if value = redact.Printable(m.text(value)); value != "" {
				lines = append(lines, name+": "+value)
			}
		}
	}
	return lines
}

// learnBody adds the secrets of a body that is not content.
func (m *masker) learnBody(contentType string, data []byte) {
	if isForm(contentType) {
		m.learnForm(string(data))
		return
	}
	if doc, ok := parseJSON(data); ok {
		m.editJSON(doc)
	} else {
		for _, member := range brokenMember.FindAllSubmatch(data, -1) {
			m.found(string(member[2]), "a token or password of a response")
		}
	}
	for _, token := range jwt.FindAll(data, -1) {
		m.found(string(token), "a token")
	}
	for _, s := range queryURL.FindAllString(string(data), -1) {
		if u, err := url.Parse(strings.ReplaceAll(s, "&amp;", "&")); err == nil {
			m.learnURL(u)
		}
	}
}

// body returns a body as it is on tape.
func (m *masker) body(contentType string, data []byte) string {
	if isForm(contentType) {
		return m.text(m.form(string(data)))
	}
	if doc, ok := parseJSON(data); !ok {
		data = brokenMember.ReplaceAll(data, []byte("${1}"+redacted))
	} else if m.editJSON(doc) {
		data = encodeJSON(doc)
	}
	s := queryURL.ReplaceAllStringFunc(string(data), func(s string) string {
		return m.url(strings.ReplaceAll(s, "&amp;", "&"))
	})
	s = m.text(s)
	// A string may be written with escapes.
	if doc, ok := parseJSON([]byte(s)); ok && !m.isMasked(doc) {
		return m.text(string(encodeJSON(doc)))
	}
	return s
}

func isForm(contentType string) bool {
	return strings.HasPrefix(strings.ToLower(contentType), "application/x-www-form-urlencoded")
}
