// The host's libyaml: YAML 1.1 as events, each with its place in the text.
#ifndef CYAML_H
#define CYAML_H

#include <yaml.h>

#endif
