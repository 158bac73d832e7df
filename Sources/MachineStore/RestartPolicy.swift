/// Whether a machine begins again when a run of it has ended by itself. Runs that the user ends are over.
public enum RestartPolicy: Equatable, Sendable, CustomStringConvertible {
    case no
    /// When it ends with another status than 0; so many times, or without limit.
    case onFailure(limit: Int?)
    case always
    /// What `always` is where no daemon would start machines that the user has stopped.
    case unlessStopped

    public init?(_ text: String) {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        switch (parts.first, parts.count) {
        case ("no", 1): self = .no
        case ("always", 1): self = .always
        case ("unless-stopped", 1): self = .unlessStopped
        case ("on-failure", 1): self = .onFailure(limit: nil)
        case ("on-failure", _):
            guard let limit = Int(parts[1]), limit > 0 else { return nil }
            self = .onFailure(limit: limit)
        default: return nil
        }
    }

    public var description: String {
        switch self {
        case .no: "no"
        case .onFailure(let limit): "on-failure" + (limit.map { ":\($0)" } ?? "")
        case .always: "always"
        case .unlessStopped: "unless-stopped"
        }
    }

    /// Whether a run that has ended by itself with this status, after so many that were begun again, is followed by another.
    public func continues(after status: Int32, restarts: Int) -> Bool {
        switch self {
        case .no: false
        case .onFailure(let limit): status != 0 && limit.map { restarts < $0 } ?? true
        case .always, .unlessStopped: true
        }
    }

    /// How long is waited before the next run, in milliseconds, as docker does it: 100, and twice as long each time, to a minute, for
    /// machines that end within ten seconds.
    public static func delay(after previous: Int, ranFor seconds: Int64) -> Int {
        seconds >= 10 || previous == 0 ? 100 : min(previous * 2, 60_000)
    }
}
