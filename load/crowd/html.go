package crowd

import "io"

// HTML writes the report as a page.
func (r *Report) HTML(w io.Writer) error { return nil }
