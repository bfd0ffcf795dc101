// SPDX-License-Identifier: Apache-2.0

// Writing the lines of a log together.

package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"
)

const (
	batchTime = 20 * time.Millisecond // that a line waits for others
	batchSize = 32 << 10              // in bytes, at which a batch is written at once
)

// batchWriter writes lines in batches: at high rates, a write(2) per line costs more
// than the request that it describes.
type batchWriter struct {
	writing sync.Mutex // held while a batch is written, so that batches stay in order
	spare   []byte     // the last batch, to use again; guarded by writing

	mu    sync.Mutex // guards the fields below
	w     io.Writer
	batch []byte
	timer *time.Timer
}

func (b *batchWriter) Write(line []byte) (int, error) {
	b.mu.Lock()
	if len(b.batch) == 0 {
		if b.timer == nil {
			b.timer = time.AfterFunc(batchTime, b.flush)
		} else {
			b.timer.Reset(batchTime)
		}
	}
	b.batch = append(b.batch, line...)
	full := len(b.batch) >= batchSize
	b.mu.Unlock()
	if full {
		b.flush()
	}
	return len(line), nil
}

// flush writes the lines of all calls of Write that have returned.
func (b *batchWriter) flush() {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	batch := b.batch
	b.batch = b.spare[:0]
	b.mu.Unlock()
	if len(batch) > 0 {
		b.w.Write(batch)
	}
	b.spare = batch
}

// batchHandler writes errors at once, with the lines before them: after an error, the
// process may end.
type batchHandler struct {
	slog.Handler
	flush func()
}

func (h batchHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelError {
		h.flush()
	}
	return err
}

func (h batchHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return batchHandler{h.Handler.WithAttrs(attrs), h.flush}
}

func (h batchHandler) WithGroup(name string) slog.Handler {
	return batchHandler{h.Handler.WithGroup(name), h.flush}
}

// isTerminal reports whether people see each write to w at once.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
