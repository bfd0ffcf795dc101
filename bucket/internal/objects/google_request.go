// SPDX-License-Identifier: Apache-2.0

// Requests to Google Cloud Storage, and its error responses.

package objects

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// googleRequest is a request.
type googleRequest struct {
	method string
	url    string
	header http.Header // nil for none
	body   [][]byte    // one after the other
}

// errNoBucket means that there is no bucket of this name.
var errNoBucket = fmt.Errorf("%w: the bucket does not exist", ErrRejected)

// googleError is an error response.
type googleError struct {
	status  int
	message string
	reasons []string
}

func (e *googleError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("objects: Google Cloud Storage: %d: %s", e.status, e.message), ": ")
}

// maxErrorBody is how many bytes of an error response are read.
const maxErrorBody = 64 << 10

// do sends a request once. It returns a response with a status below 300, or 308.
func (b *googleBucket) do(ctx context.Context, r googleRequest) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, nil)
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	if r.header != nil {
		req.Header = r.header
	}
	req.Header.Set("User-Agent", "berth")
	if len(r.body) > 0 {
		for _, p := range r.body {
			req.ContentLength += int64(len(p))
		}
		// With GetBody, net/http replaces a connection that was closed while idle.
		req.GetBody = func() (io.ReadCloser, error) {
			readers := make([]io.Reader, len(r.body))
			for i, p := range r.body {
				readers[i] = bytes.NewReader(p)
			}
			return io.NopCloser(io.MultiReader(readers...)), nil
		}
		if req.ContentLength > 0 {
			req.Body, _ = req.GetBody()
		}
	}
	if err := b.authorize(req); err != nil {
		return nil, err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("objects: %w", err)
	}
	if resp.StatusCode < 300 || resp.StatusCode == http.StatusPermanentRedirect {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, newGoogleError(resp)
}

// call sends a request, and decodes the response into a value unless that is nil.
func (b *googleBucket) call(ctx context.Context, r googleRequest, value any) error {
	resp, err := b.do(ctx, r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if value == nil {
		io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody)) // so that the connection can be used again
		return nil
	}
	body, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(body, value)
	}
	if err != nil {
		return fmt.Errorf("objects: response of Google Cloud Storage: %w", err)
	}
	return nil
}

// newGoogleError returns the error that a response means.
func newGoogleError(resp *http.Response) error {
	e := &googleError{status: resp.StatusCode}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var document struct {
		Error struct {
			Message string `json:"message"`
			Errors  []struct {
				Reason string `json:"reason"`
			} `json:"errors"`
		} `json:"error"`
	}
	if json.Unmarshal(body, &document) == nil {
		e.message = document.Error.Message
		for _, item := range document.Error.Errors {
			e.reasons = append(e.reasons, item.Reason)
		}
	} else if d := (struct{ Code, Message string }{}); xml.Unmarshal(body, &d) == nil { // a read of content
		if d.Code == "NoSuchBucket" {
			return errNoBucket
		}
		e.message, e.reasons = d.Message, []string{d.Code}
	} else {
		e.message = oneLine(string(body)) // uploads have errors in plain text
	}
	e.message = cmp.Or(e.message, http.StatusText(e.status))
	switch e.status {
	case http.StatusNotFound:
		return ErrNotExist
	case http.StatusPreconditionFailed:
		return ErrCondition
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden:
		if !e.limited() {
			return fmt.Errorf("%w: %w", ErrRejected, e)
		}
	}
	return e
}

// limited reports whether Google forbids a request only because there were too many
// before.
func (e *googleError) limited() bool {
	return slices.Contains(e.reasons, "rateLimitExceeded") || slices.Contains(e.reasons, "userRateLimitExceeded")
}

// googleForm returns what precedes and follows the bytes of an object in a request
// that writes it, and the type of that request.
func googleForm(key string, crc uint32) (head, tail []byte, contentTypeOfForm string) {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, _ := w.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}}) // writes to a Buffer do not fail
	json.NewEncoder(part).Encode(map[string]string{"name": key, "contentType": contentType, "crc32c": googleSum(crc)})
	w.CreatePart(textproto.MIMEHeader{"Content-Type": {contentType}})
	n := form.Len()
	w.Close()
	return form.Bytes()[:n], form.Bytes()[n:], "multipart/related; boundary=" + w.Boundary()
}
