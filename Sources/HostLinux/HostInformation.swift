import CDavit

/// What the host has.
public enum HostInformation {
    /// RAM in bytes; 0 if it cannot be told.
    public static var memorySize: UInt64 { davit_host_memory() }
}
