// SPDX-License-Identifier: Apache-2.0

// Signatures of requests.

package notify

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// SignatureHeader is the header with the signature of a request.
const SignatureHeader = "Berth-Signature"

func mac(secret []byte, t string, body []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(t + "."))
	h.Write(body)
	return h.Sum(nil)
}

// sign returns the value of the header for a body that is sent at a time.
func sign(secret, body []byte, at time.Time) string {
	t := strconv.FormatInt(at.Unix(), 10)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac(secret, t, body))
}

// Verify checks the value of a request's [SignatureHeader]: that a holder of secret has
// sent the body, at most maxAge ago. It is for receivers. A clock that differs by up
// to maxAge in the other direction is tolerated. Errors say what is wrong; there is
// nothing to tell apart.
func Verify(secret []byte, header string, body []byte, maxAge time.Duration) error {
	if len(secret) == 0 {
		return errors.New("notify: the secret is empty")
	}
	var t string
	var sums [][]byte
	for member := range strings.SplitSeq(header, ",") {
		switch key, value, _ := strings.Cut(member, "="); key {
		case "t":
			t = value
		case "v1":
			sum, err := hex.DecodeString(value)
			if err != nil {
				return errors.New("notify: the signature is not hexadecimal")
			}
			sums = append(sums, sum)
		}
	}
	seconds, err := strconv.ParseInt(t, 10, 64)
	if err != nil {
		return errors.New("notify: the signature has no time")
	}
	if age := time.Since(time.Unix(seconds, 0)); age.Abs() > maxAge {
		return fmt.Errorf("notify: the signature is from %v", time.Unix(seconds, 0).UTC().Format(time.RFC3339))
	}
	want := mac(secret, t, body)
	for _, sum := range sums {
		if hmac.Equal(sum, want) {
			return nil
		}
	}
	return errors.New("notify: the signature does not match")
}
