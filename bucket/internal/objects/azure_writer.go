// SPDX-License-Identifier: Apache-2.0

// Writing large objects to Azure, in blocks.

package objects

import (
	"context"
	"io"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
)

// azureWriter writes an object. Azure's client may repeat requests, which does no
// harm: each block has the same bytes and the same ID each time.
type azureWriter struct {
	pipe   *io.PipeWriter // to the goroutine that sends blocks
	cancel context.CancelFunc
	done   chan struct{} // closed when that goroutine has ended
	sent   error         // its result
	err    error         // why the writer can't continue
}

func (b azureBucket) NewWriter(ctx context.Context, key string) Writer {
	r, pipe := io.Pipe()
	w := &azureWriter{pipe: pipe, done: make(chan struct{})}
	ctx, w.cancel = context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { pipe.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer close(w.done)
		defer stop()
		_, err := b.client.NewBlockBlobClient(azureKey(key)).UploadStream(ctx, r, &blockblob.UploadStreamOptions{
			BlockSize:   chunkSize,
			Concurrency: WriterMemory / chunkSize,
			HTTPHeaders: azureHeaders(),
		})
		w.sent = azureResult(err)
		r.CloseWithError(w.sent)
	}()
	return w
}

func (w *azureWriter) Write(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.pipe.Write(p)
	w.err = err
	return n, err
}

func (w *azureWriter) Close() error {
	if w.err == nil {
		w.pipe.Close()
		<-w.done
		w.err = w.sent
	}
	if w.err != nil {
		w.Abort()
		return w.err
	}
	w.cancel()
	w.err = errClosed
	return nil
}

func (w *azureWriter) Abort() {
	if w.err == nil {
		w.err = errAborted
	}
	w.cancel()
	<-w.done
}
