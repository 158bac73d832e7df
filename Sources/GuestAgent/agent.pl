#!/usr/bin/perl
# Davit's guest agent: runs programs for the host, which connects to a vsock port that systemd listens on and hands over as descriptor 3.
# A connection is a program. Nothing is needed but Debian's perl-base, which every Debian has.
#
# Both sides send frames: a letter, the count of the bytes that follow (32 bits, big-endian), those bytes.
#
#     host   R  request: strings, each ended by a zero byte: options NAME=VALUE, an empty one, then the words of the command; with no
#               words, the user's login shell. Options: version, terminal (TERM; without it there is no terminal), size (ROWS COLUMNS),
#               directory, user, env (NAME=VALUE; several)
#            I  input; without bytes, its end
#            W  the terminal's new size: ROWS COLUMNS
#            S  a signal's name
#     guest  O  output
#            E  error output
#            C  so many bytes of the input have been taken (32 bits): the host has a limited number under way, so that this side never has
#               to stop reading, and signals always come through
#            X  the program has ended: exit status, or 128 and the signal's number (32 bits)
#            F  the program could not be started: exit status as a shell has it (32 bits), and why
use strict;
use warnings;
use POSIX ();

use constant {
    VERSION => 1,
    # What the host does not take in waits in the programs' pipes.
    OUTPUT_LIMIT => 256 << 10,
    FRAME_LIMIT => 1 << 20,
    PIDFD_OPEN => 434,
    TIOCGPTN => 0x80045430,
    TIOCSPTLCK => 0x40045431,
    TIOCSCTTY => 0x540E,
    TIOCSWINSZ => 0x5414,
};

my ($connection, $input, $output) = (undef, '', '');

sub frame { my ($kind, $bytes) = @_; return pack('a N/a*', $kind, $bytes) }

# The next whole frame of what has come, as kind and bytes; nothing if there is none yet.
sub next_frame {
    return if length $input < 5;
    my ($kind, $count) = unpack('a N', $input);
    POSIX::_exit(1) if $count > FRAME_LIMIT;
    return if length $input < 5 + $count;
    my $bytes = substr($input, 5, $count);
    substr($input, 0, 5 + $count, '');
    return ($kind, $bytes);
}

sub finish {
    my ($last) = @_;
    $output .= $last;
    $connection->blocking(1);
    while (length $output) {
        my $count = syswrite($connection, $output);
        next if !defined $count && $!{EINTR};
        last if !$count;
        substr($output, 0, $count, '');
    }
    POSIX::_exit(0);
}

sub fail { my ($status, $why) = @_; finish(frame('F', pack('N a*', $status, $why))) }

sub resize {
    my ($terminal, $text) = @_;
    my ($rows, $columns) = $text =~ /^(\d{1,4}) (\d{1,4})$/ or return;
    ioctl($terminal, TIOCSWINSZ, pack('S4', $rows, $columns, 0, 0));
}

sub open_terminal {
    my ($size) = @_;
    sysopen(my $master, '/dev/ptmx', POSIX::O_RDWR | POSIX::O_NOCTTY) or fail(126, "no terminal: $!");
    my $number = pack('i', 0);
    ioctl($master, TIOCSPTLCK, $number) or fail(126, "no terminal: $!");
    ioctl($master, TIOCGPTN, $number) or fail(126, "no terminal: $!");
    sysopen(my $slave, '/dev/pts/' . unpack('i', $number), POSIX::O_RDWR | POSIX::O_NOCTTY)
        or fail(126, "no terminal: $!");
    resize($master, $size);
    return ($master, $slave);
}

sub a_pipe { pipe(my $reader, my $writer) or fail(126, "no pipe: $!"); return ($reader, $writer) }

# In the child: becomes the program. What keeps it from that goes through $report, which a program that starts closes.
sub become {
    my ($report, $request, $streams, @command) = @_;
    my $give_up = sub { syswrite($report, pack('N a*', @_)); POSIX::_exit(127) };
    # Which systemd has its services ignore, and programs in a pipeline count on.
    $SIG{PIPE} = 'DEFAULT';
    POSIX::setsid();
    my ($name, undef, $uid, $gid, undef, undef, undef, $home, $shell) =
        getpwnam($request->{user}) or $give_up->(126, "there is no user '$request->{user}'");
    $shell = '/bin/sh' if !$shell;
    ioctl($streams->[0], TIOCSCTTY, 0) if defined $request->{terminal};
    POSIX::dup2(fileno($streams->[$_]), $_) for 0 .. 2;
    %ENV = (
        PATH => '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', LANG => 'C.UTF-8',
        HOME => $home, USER => $name, LOGNAME => $name, SHELL => $shell,
    );
    $ENV{TERM} = $request->{terminal} if defined $request->{terminal};
    /^([^=]+)=(.*)$/s and $ENV{$1} = $2 for @{$request->{env}};
    if ($uid != 0) {
        my @groups = ($gid);
        while (my @group = getgrent) { push @groups, $group[2] if grep { $_ eq $name } split / /, $group[3] }
        chown $uid, -1, $streams->[0] if defined $request->{terminal};
        $( = $gid;
        $) = "$gid @groups";
        POSIX::setuid($uid) or $give_up->(126, "user '$name': $!");
    }
    my $directory = $request->{directory} // $home;
    chdir $directory or defined $request->{directory} ? $give_up->(126, "directory '$directory': $!") : chdir '/';
    my $is_login = !@command;
    @command = ($shell) if $is_login;
    my $argument0 = $is_login ? '-' . ($shell =~ m{([^/]+)$})[0] : $command[0];
    no warnings 'exec';
    exec {$command[0]} $argument0, @command[1 .. $#command];
    $give_up->($!{ENOENT} ? 127 : 126, "'$command[0]': $!");
}

# Starts what is asked for; the process, where its input goes and where its outputs come from, by the letters of their frames.
sub start {
    my ($bytes) = @_;
    my %request = (env => [], user => 'root', size => '24 80');
    my @strings = split /\0/, $bytes, -1;
    pop @strings;
    while (defined(my $string = shift @strings)) {
        last if $string eq '';
        my ($name, $value) = split /=/, $string, 2;
        if ($name eq 'env') { push @{$request{env}}, $value } else { $request{$name} = $value }
    }
    fail(125, 'the agent in the guest is of another version; make the image anew')
        if ($request{version} // 0) != VERSION;
    my ($program_input, %outputs, @streams, @far);
    if (defined $request{terminal}) {
        my ($master, $slave) = open_terminal($request{size});
        ($program_input, %outputs) = ($master, O => $master);
        @streams = ($slave) x 3;
    } else {
        my @pipes = map { [a_pipe()] } 0 .. 2;
        ($program_input, %outputs) = ($pipes[0][1], O => $pipes[1][0], E => $pipes[2][0]);
        @streams = ($pipes[0][0], $pipes[1][1], $pipes[2][1]);
    }
    my ($told, $report) = a_pipe();
    my $process = fork // fail(126, "no process: $!");
    if ($process == 0) {
        close $told;
        become($report, \%request, \@streams, @strings);
    }
    close $_ for $report, @streams;
    my $problem = '';
    1 while sysread($told, $problem, 4096, length $problem);
    fail(unpack('N a*', $problem)) if length $problem;
    return ($process, $program_input, %outputs);
}

# Reads what has come; false at the end. A terminal whose programs are gone gives EIO.
sub take {
    my ($from, $to) = @_;
    my $count = sysread($from, $$to, 65536, length $$to);
    return defined $count ? $count > 0 : $!{EAGAIN} || $!{EINTR};
}

sub serve {
    my ($kind, $bytes);
    until (($kind, $bytes) = next_frame()) { take($connection, \$input) or POSIX::_exit(0) }
    POSIX::_exit(1) if $kind ne 'R';
    my ($process, $program_input, %outputs) = start($bytes);
    my $terminal = exists $outputs{E} ? undef : $program_input;
    # Readable when the process has ended.
    my $end = syscall(PIDFD_OPEN, $process, 0);
    $_->blocking(0) for $connection, $program_input, values %outputs;
    my ($pending, $has_ended) = ('', 0);
    while (1) {
        while (($kind, $bytes) = next_frame()) {
            if ($kind eq 'I') {
                if (length $bytes) { $pending .= $bytes }
                elsif (defined $terminal) { $pending .= "\x04" }
                else { $has_ended = 1 }
            } elsif ($kind eq 'W') { resize($terminal, $bytes) if defined $terminal }
            elsif ($kind eq 'S' && $bytes =~ /^[A-Z]+[0-9]*$/) { eval { kill $bytes, -$process } }
        }
        if ($has_ended && defined $program_input && !length $pending) { close $program_input; undef $program_input }
        my ($readers, $writers) = ('', '');
        vec($readers, fileno $connection, 1) = 1;
        vec($readers, $end, 1) = 1;
        if (length $output < OUTPUT_LIMIT) { vec($readers, fileno $_, 1) = 1 for values %outputs }
        vec($writers, fileno $connection, 1) = 1 if length $output;
        vec($writers, fileno $program_input, 1) = 1 if defined $program_input && length $pending;
        select($readers, $writers, undef, undef) > 0 or next;

        if (vec($readers, fileno $connection, 1)) {
            if (!take($connection, \$input)) {
                # The host's side is gone, and with it the terminal, as when a line is hung up.
                kill 'HUP', -$process;
                kill 'CONT', -$process;
                POSIX::_exit(0);
            }
        }
        if (defined $program_input && length $pending) {
            local $SIG{PIPE} = 'IGNORE';
            my $count = syswrite($program_input, $pending, 65536);
            # A program that reads no more is no reason for the host to wait.
            $count = length $pending if !defined $count && !$!{EAGAIN} && !$!{EINTR};
            if ($count) {
                substr($pending, 0, $count, '');
                $output .= frame('C', pack('N', $count));
            }
        }
        for my $name (keys %outputs) {
            next if !vec($readers, fileno $outputs{$name}, 1);
            my $chunk = '';
            my $goes_on = take($outputs{$name}, \$chunk);
            $output .= frame($name, $chunk) if length $chunk;
            delete $outputs{$name} if !$goes_on;
        }
        if (length $output) {
            my $count = syswrite($connection, $output);
            if ($count) { substr($output, 0, $count, '') }
        }
        next if !vec($readers, $end, 1);
        waitpid($process, 0);
        my $status = $? & 127 ? 128 + ($? & 127) : $? >> 8;
        # What it said last; what its children say from now on is not waited for.
        for my $name (keys %outputs) {
            my $chunk = '';
            1 while sysread($outputs{$name}, $chunk, 65536, length $chunk);
            $output .= frame($name, $chunk) if length $chunk;
        }
        finish(frame('X', pack('N', $status)));
    }
}

open(my $listener, '+<&=', 3) or die "davit-agent: nobody listens for it: $!\n";
# Nobody waits for those that serve a connection.
$SIG{CHLD} = 'IGNORE';
while (1) {
    if (!accept($connection, $listener)) {
        next if $!{EINTR} || $!{ECONNABORTED};
        die "davit-agent: no more connections: $!\n";
    }
    my $process = fork;
    if (defined $process && $process == 0) {
        $SIG{CHLD} = 'DEFAULT';
        close $listener;
        serve();
    }
    close $connection;
}
