import CDavit

/// What the host has.
public enum HostInformation {
    /// RAM in bytes; 0 if it cannot be told.
    public static var memorySize: UInt64 { davit_host_memory() }

    /// Whether this process may run on a processor of the host's, by its number in /proc/cpuinfo.
    public static func mayRun(onProcessor number: Int) -> Bool { davit_may_run_on(Int32(clamping: number)) }
}

/// This program's own pages.
public enum ProgramPages {
    /// Gives back what start-up has mapped of the program's file and the rest of the program's life hardly touches: option parsing, loaders,
    /// relocations. What is needed again comes from the page cache.
    public static func release() { davit_release_program() }
}
