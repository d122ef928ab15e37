/** The request is not the one that the gateway signed. Respond with 401 and do not use any of its headers. */
public final class NotVerified extends Exception {
    private static final long serialVersionUID = 1L;

    public NotVerified(String reason) {
        super(reason);
    }
}
