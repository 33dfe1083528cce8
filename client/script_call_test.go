package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/qi-realtime/ws/client"
)

// call begins a call of the application; its end is noted as a result.
func (st *stage) call(in *input) {
	switch {
	case in.Request != nil:
		st.begin(in.Request, st.request)
	case in.Join != nil:
		st.begin(in.Join, st.join)
	case in.Leave != nil:
		st.begin(in.Leave, func(ctx context.Context, c *call) (object, error) {
			return object{}, st.c.Room(c.Room).Leave(ctx)
		})
	case in.Notify != nil:
		st.begin(in.Notify, func(_ context.Context, c *call) (object, error) {
			return object{}, st.c.Notify(c.Event, optional(c.Data))
		})
	case in.Ack != nil:
		st.c.Room(in.Ack.Room).Ack(in.Ack.Offset)
	}
}

func (st *stage) begin(c *call, fn func(context.Context, *call) (object, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	st.cancels[c.As] = cancel
	if c.TimeoutMS > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.TimeoutMS)*time.Millisecond)
	}
	go func() {
		defer cancel()
		result, err := fn(ctx, c)
		if err != nil {
			result = failure(err)
		}
		result["of"] = c.As
		st.note(&st.out.Results, result)
	}()
}

func (st *stage) request(ctx context.Context, c *call) (object, error) {
	var opts []client.RequestOption
	if c.Idempotent {
		opts = append(opts, client.Idempotent())
	}
	data, err := client.Request[json.RawMessage](ctx, st.c, c.Event, optional(c.Data), opts...)
	if data == nil {
		return object{}, err
	}
	return object{"data": data}, err
}

func (st *stage) join(ctx context.Context, c *call) (object, error) {
	var opts []client.JoinOption
	if c.Since != nil {
		opts = append(opts, client.Since(*c.Since))
	}
	if c.Last > 0 {
		opts = append(opts, client.Last(c.Last))
	}
	if c.Strict {
		opts = append(opts, client.Strict())
	}
	if c.Device != "" {
		opts = append(opts, client.Device(c.Device))
	}
	if c.AutoAck {
		opts = append(opts, client.AutoAck())
	}
	if c.Presence {
		opts = append(opts, client.Presence(func() (v client.PresenceVersion) {
			if has := st.list.Load(); has != nil {
				v = *has
			}
			return v
		}))
	}
	joined, err := st.c.Room(c.Room).Join(ctx, opts...)
	return object{"joined": joined}, err
}

// optional returns nil for absent data.
func optional(data json.RawMessage) any {
	if data == nil {
		return nil
	}
	return data
}

// failure returns the result of a call that failed.
func failure(err error) object {
	if refused, ok := errors.AsType[*client.ServerError](err); ok {
		o := object{"error": "server", "code": refused.Code, "message": refused.Message}
		if refused.Data != nil {
			o["data"] = refused.Data
		}
		return o
	}
	for _, kind := range []struct {
		err  error
		name string
	}{
		{client.ErrClosed, "closed"},
		{client.ErrConnectionLost, "lost"},
		{client.ErrQueueFull, "queue_full"},
		{client.ErrAlreadyJoined, "joined"},
		{context.DeadlineExceeded, "timeout"},
		{context.Canceled, "canceled"},
	} {
		if errors.Is(err, kind.err) {
			return object{"error": kind.name}
		}
	}
	return object{"error": err.Error()}
}
