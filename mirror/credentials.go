// SPDX-License-Identifier: Apache-2.0

// Credentials from the configuration of docker.

package mirror

import (
	"context"
	"fmt"
	"os"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// credentialError is the error of a CredentialFunc.
type credentialError struct{ error }

func (e credentialError) Unwrap() error { return e.error }

// tellErrors returns a function whose errors can be told from those of the network.
func tellErrors(credential auth.CredentialFunc) auth.CredentialFunc {
	if credential == nil {
		return nil
	}
	return func(ctx context.Context, host string) (auth.Credential, error) {
		c, err := credential(ctx, host)
		if err != nil {
			err = credentialError{err}
		}
		return c, err
	}
}

// DockerCredentials returns the credentials in a configuration file of docker, such as
// ~/.docker/config.json, and of the credential helpers that it names. They are read when
// they are needed, so that a change takes effect.
//
// Errors: those of a file that can't be read.
func DockerCredentials(file string) (auth.CredentialFunc, error) {
	if _, err := os.Stat(file); err != nil {
		return nil, err
	}
	if _, err := credentials.NewStore(file, credentials.StoreOptions{}); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return func(ctx context.Context, host string) (auth.Credential, error) {
		store, err := credentials.NewStore(file, credentials.StoreOptions{})
		if err != nil {
			return auth.EmptyCredential, err
		}
		return credentials.Credential(store)(ctx, host)
	}, nil
}
