package git

import "time"

// SetIdle shortens how long a transfer may stand still.
func (o *Options) SetIdle(d time.Duration) { o.idle = d }
