// What Swift cannot express: the state layout that emitted code addresses by offset, and a few system interfaces.
#ifndef CDAVIT_H
#define CDAVIT_H

#include "davit_alu.h"
#include "davit_atomic.h"
#include "davit_cpu.h"
#include "davit_file.h"
#include "davit_fpu.h"
#include "davit_kvm.h"
#include "davit_linux.h"
#include "davit_ring.h"
#include "davit_share.h"
#include "davit_signal.h"
#include "davit_socket.h"
#include "davit_terminal.h"
#include "davit_tlb.h"

#endif
