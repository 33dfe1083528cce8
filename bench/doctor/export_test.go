package doctor

// The functions that the tests call.
var (
	Reserve        = reserve
	DescriptorsFor = descriptorsFor
	Group          = group
	Size           = size
)
