import MachineModel

/// A serial line's or console port's far end, as who has opened it sees it.
public protocol ConsoleChannel: ByteChannel {
    /// Lets nobody wait for a slow reader any more, because the machine has been asked to stop at once.
    func hurry()
    /// Ends input, and waits until all output is written; once hurried, for half a second at most.
    func close()
}
