// SPDX-License-Identifier: Apache-2.0

// Signed URLs of Google Cloud Storage, version 4
// (https://cloud.google.com/storage/docs/authentication/signatures).

package objects

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// googleSigner is the service account that signs URLs.
type googleSigner struct {
	email    string
	key      *rsa.PrivateKey // nil: Google has it, and signs
	universe string
}

// maxSignedURL is how long a URL can be good for.
const maxSignedURL = 7 * 24 * time.Hour

// SignedURL fails with ErrUnsupported if the credentials are not those of a service
// account.
func (b *googleBucket) SignedURL(ctx context.Context, key string, expires time.Duration) (string, error) {
	if b.signer == nil {
		return "", fmt.Errorf("%w: a service account must sign URLs of Google Cloud Storage", ErrUnsupported)
	}
	return b.signURL(ctx, key, time.Now(), min(expires, maxSignedURL))
}

func (b *googleBucket) signURL(ctx context.Context, key string, now time.Time, expires time.Duration) (string, error) {
	const algorithm = "GOOG4-RSA-SHA256"
	endpoint, err := url.Parse(b.endpoint)
	if err != nil {
		return "", fmt.Errorf("objects: %w", err)
	}
	instant := now.UTC().Format("20060102T150405Z")
	scope := instant[:8] + "/auto/storage/goog4_request"
	path := b.contentPath(key)
	query := strings.ReplaceAll(url.Values{
		"X-Goog-Algorithm":     {algorithm},
		"X-Goog-Credential":    {b.signer.email + "/" + scope},
		"X-Goog-Date":          {instant},
		"X-Goog-Expires":       {strconv.FormatInt(int64(expires/time.Second), 10)},
		"X-Goog-SignedHeaders": {"host"},
	}.Encode(), "+", "%20")
	request := sha256.Sum256([]byte("GET\n" + path + "\n" + query + "\nhost:" + endpoint.Host + "\n\nhost\nUNSIGNED-PAYLOAD"))
	signature, err := b.sign(ctx, []byte(algorithm+"\n"+instant+"\n"+scope+"\n"+hex.EncodeToString(request[:])))
	if err != nil {
		return "", err
	}
	return b.endpoint + path + "?" + query + "&X-Goog-Signature=" + hex.EncodeToString(signature), nil
}

// escapeSigned escapes a path as signatures require: all but unreserved characters and
// slashes.
func escapeSigned(path string) string {
	return strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(path))
}

// sign returns the signature of a text.
func (b *googleBucket) sign(ctx context.Context, text []byte) ([]byte, error) {
	if b.signer.key != nil {
		sum := sha256.Sum256(text)
		return rsa.SignPKCS1v15(rand.Reader, b.signer.key, crypto.SHA256, sum[:])
	}
	body, err := json.Marshal(map[string][]byte{"payload": text})
	if err != nil {
		return nil, err
	}
	var signed struct {
		Blob []byte `json:"signedBlob"`
	}
	err = b.call(ctx, googleRequest{
		method: http.MethodPost,
		url:    b.signer.endpoint() + "/v1/projects/-/serviceAccounts/" + url.PathEscape(b.signer.email) + ":signBlob",
		header: http.Header{"Content-Type": {"application/json"}},
		body:   [][]byte{body},
	}, &signed)
	if err != nil {
		return nil, fmt.Errorf("objects: can't sign a URL as %s: %w", b.signer.email, err)
	}
	return signed.Blob, nil
}

// endpoint returns the URL of the service that signs.
func (s *googleSigner) endpoint() string {
	if s.universe == "" {
		return "https://iamcredentials.googleapis.com"
	}
	return "https://iamcredentials." + s.universe
}

// parsePrivateKey parses the private key of a service account. It returns nil if there
// is none.
func parsePrivateKey(key []byte) (*rsa.PrivateKey, error) {
	if len(key) == 0 {
		return nil, nil
	}
	if block, _ := pem.Decode(key); block != nil {
		key = block.Bytes
	}
	parsed, err := x509.ParsePKCS8PrivateKey(key)
	if err != nil {
		parsed, err = x509.ParsePKCS1PrivateKey(key)
	}
	if err != nil {
		return nil, fmt.Errorf("objects: the private key of a service account: %w", err)
	}
	k, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("objects: the private key of a service account is not one of RSA")
	}
	return k, nil
}
