// SPDX-License-Identifier: Apache-2.0

package tokens_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"

	"github.com/berth-oci/registry/auth"
	"github.com/berth-oci/registry/tokens"
)

func Example() {
	// The token server has the private key, the registry only the public one.
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	server := &auth.TokenServer{Service: "registry.example", Key: key}
	verifier, err := tokens.New(tokens.Config{Service: "registry.example", PublicKeys: []crypto.PublicKey{key.Public()}})
	if err != nil {
		fmt.Println(err)
		return
	}

	w := httptest.NewRecorder()
	server.ServeHTTP(w, httptest.NewRequest("GET", "/token", nil))
	var response struct {
		Token string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &response); err != nil {
		fmt.Println(err)
		return
	}
	_, err = verifier.Verify(context.Background(), response.Token)
	fmt.Println(err)
	_, err = verifier.Verify(context.Background(), "eyJhbGciOiJub25lIn0.e30.")
	fmt.Println(errors.Is(err, auth.ErrTokenInvalid))
	// Output:
	// <nil>
	// true
}
