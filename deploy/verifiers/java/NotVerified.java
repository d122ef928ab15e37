/** The request is not what the gateway signed: answer 401 and use nothing of it. */
public final class NotVerified extends Exception {
    private static final long serialVersionUID = 1L;

    public NotVerified(String reason) {
        super(reason);
    }
}
