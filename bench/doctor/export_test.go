package doctor

// What the tests look at.
var (
	Reserve        = reserve
	DescriptorsFor = descriptorsFor
	Group          = group
	Size           = size
)
