import HostLinux
import Synchronization

/// A queue that any thread may put into and one takes from.
final class Inbox<Element: Sendable>: Sendable {
    private let filled: EventFD
    /// Guards the queue.
    private let elements = Mutex<[Element]>([])

    init() throws(SystemError) { filled = try EventFD() }

    func put(_ element: Element) {
        elements.withLock { $0.append(element) }
        filled.signal()
    }

    /// The oldest element. Waits for one, at most `milliseconds` if that is not nil; nil on time-out.
    func take(milliseconds: Int32? = nil) -> Element? {
        while true {
            let element = elements.withLock { $0.isEmpty ? nil : $0.removeFirst() }
            if let element { return element }
            guard filled.wait(milliseconds: milliseconds ?? -1) else { return nil }
            _ = filled.drain()
        }
    }

    /// Throws away what is waiting and not wanted.
    func discard(where isUnwanted: (Element) -> Bool) {
        elements.withLock { $0.removeAll(where: isUnwanted) }
    }
}
