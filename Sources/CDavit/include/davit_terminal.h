// The terminal's mode and the process's signals, where only async-signal-safe code may run.
#ifndef DAVIT_TERMINAL_H
#define DAVIT_TERMINAL_H

#include <stdbool.h>

// Puts the terminal `fd` into raw mode and remembers how it was. From then on every way out of the process that a program can see
// (exit, a fatal signal, a crash) puts it back; SIGTSTP puts it back while the process is stopped. 0, or -1 with errno.
int davit_terminal_make_raw(int fd);

// Puts the terminal back; harmless when it is not raw. Async-signal-safe.
void davit_terminal_restore(void);

bool davit_terminal_is_raw(void);

// SIGINT, SIGTERM, SIGHUP and SIGQUIT add their number to the eventfd `event_fd`; a second one ends the process at once.
// Signals that the process was told to ignore stay ignored. Crashes put the terminal back first; SIGPIPE is ignored. 0, or -1 with errno.
int davit_signals_watch(int event_fd);

// A change of the controlling terminal's size adds 1 to the eventfd `event_fd`. 0, or -1 with errno.
int davit_terminal_watch_size(int event_fd);

// Gives the calling thread a stack of its own for signal handlers, so that a stack overflow is survived long enough.
// 0, or -1 with errno. The stack is freed by davit_signals_drop_stack.
int davit_signals_make_stack(void);
void davit_signals_drop_stack(void);

#endif
