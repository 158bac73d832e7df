// A target needs a source; libyaml is the host's.
#include "CYAML.h"
