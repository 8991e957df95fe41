"""Languages of which everything is known exactly, read after the rest of core/."""

from flowlm.core.oracle.automaton import Automaton as Automaton
from flowlm.core.oracle.language import Language as Language
from flowlm.core.oracle.listed import Listed as Listed
